// Clicks inside the conversation. Runs once per component; `element` and `trigger` come from gr.HTML.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (!button || !element.contains(button)) return;
  const article = button.closest(".turn");
  const action = button.dataset.action;
  const form = article && article.querySelector("form.feedback");
  if (action === "copy") {
    const copy = document.createElement("textarea");
    copy.value = article.dataset.text;
    document.body.append(copy);
    copy.select();
    document.execCommand("copy");  // navigator.clipboard is missing where the page is served without TLS
    copy.remove();
    const label = button.textContent;
    button.textContent = button.dataset.done;
    setTimeout(() => { button.textContent = label; }, 1500);
    button.focus();
  } else if (action === "open" || action === "close") {
    form.hidden = action === "close" || !form.hidden;
    const opener = article.querySelector("[data-action=open]");
    opener.setAttribute("aria-expanded", String(!form.hidden));
    (form.hidden ? opener : form.querySelector("input")).focus();
  } else {
    const data = { action, turn: article ? Number(article.dataset.turn) : null, text: button.dataset.text || "" };
    if (action === "down") {
      const reason = form.querySelector("input[type=radio]:checked");
      data.reason = reason ? reason.value : "";
      data.correction = form.querySelector("textarea").value;
      data.consent = form.querySelector("input[type=checkbox]").checked;
      form.hidden = true;
    }
    trigger("click", data);
  }
});
// Show what is new: the growing answer's end while the reader is there, an emergency's beginning in any case.
watch("value", () => {
  const last = element.querySelector("article:last-of-type");
  const isLive = element.closest("#live") !== null;
  if (!last || (!isLive && last.dataset.turn === element.dataset.seen)) return;
  const left = document.documentElement.scrollHeight - window.scrollY - window.innerHeight;
  if (last.classList.contains("emergency")) last.querySelector(".answer").scrollIntoView({ block: "start" });
  else if (isLive && left < 400) last.scrollIntoView({ block: "end" });
  if (!isLive) element.dataset.seen = last.dataset.turn;
});
element.addEventListener("submit", (event) => event.preventDefault());
