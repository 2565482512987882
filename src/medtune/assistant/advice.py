"""Questions that need more than a passage: an individual dose, pregnancy, a child, medicines together.

Covered: which of the four (the riskiest first), and what a pharmacist would have to ask that was not said.
Medicines are known by their word endings and by the commonest names, English and Spanish.
Not covered: the answer. The gate computes no dose; `grounding` lets a number through only where a cited passage has it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from medtune.assistant.scope import TERSE_WORDS
from medtune.types import Message, Verdict

_ENDINGS = (
    r"\w{3,}(?:pril|olol|statin|sartan|azole?|cillin|cilina|mycin|micina|oxetine|oxetina|azepam|zolam|tidine"
    r"|gliptina?|gliflozina?|"
    r"glutida?|mab|tinib|vir|floxacina?|dronate|setron|triptana?|profen[oa]?|caine|cycline|ciclina|parina?|xaban"
    r"|amol|thiazide|"
    r"prazole?|semide|dipine|dipino|sone|solone|lukast|oxicam|barbital|pramine|triptyline|azine|terol|tropium"
    r"|formina?)s?"
)
_NAMES = (
    "acetaminophen|tylenol|paracetamol|aspirin|aspirina|advil|motrin|aleve|naproxen|ibuprofeno|codeine|morphine"
    "|oxycodone|hydrocodone|"
    "percocet|vicodin|tramadol|fentanyl|methadone|suboxone|gabapentin|lyrica|pregabalin|benadryl|claritin|zyrtec"
    "|allegra|sudafed|"
    "mucinex|nyquil|dayquil|robitussin|pepto|imodium|antacids?|antibiotics?|antibi[oó]ticos?|steroids?|warfarin"
    "|coumadin|eliquis|xarelto|plavix|"
    "blood thinners?|insulin|insulina|ozempic|wegovy|mounjaro|jardiance|synthroid|levothyroxine|thyroid (?:pills?"
    "|tablets?|medicine)|"
    "lithium|prozac|zoloft|lexapro|celexa|sertraline|citalopram|escitalopram|venlafaxine|effexor|wellbutrin"
    "|bupropion|trazodone|"
    "xanax|valium|ativan|klonopin|ambien|adderall|ritalin|vyvanse|concerta|seroquel|abilify|viagra|cialis|sildenafil"
    "|digoxin|"
    "lasix|spironolactone|hydrochlorothiazide|clonidine|nitroglycerin|statins?|lipitor|crestor|methotrexate|humira"
    "|accutane|"
    "st\\.? john'?s wort|melatonin|iron (?:pills?|tablets?)|vitamin [a-k]\\d*|vitamina [a-k]\\d*|ginkgo|birth "
    "control|the pill|contraceptives?|anticonceptivos?|"
    "cough syrup|cold medicines?|sleeping pills?|pain ?killers?|nsaids?|antidepressants?|antihistamines?|inhaler|"
    "medicines?|medications?|meds|drugs?|pills?|tablets?|capsules?|medicamentos?|medicinas?|pastillas?|jarabe"
    "|supplements?"
)  # fmt: skip
_MEDICINE = re.compile(rf"\b(?:{_ENDINGS}|{_NAMES})\b", re.I)
_DOSE = re.compile(
    r"\b(?:how much(?: \w+)?\W*$|how (?:much|many) (?:[\w-]+ ){1,3}(?:for|can|could|may|should|to give)\b|"
    r"how (?:much|many|often|frequently)\b.{0,60}\b(?:take|give|use|inject|drink|mg|ml|pills?"
    r"|tablets?|drops"
    r"|puffs|units|dose|safe)|"
    r"(?:what|which|right|correct|safe|maximum|max|usual|recommended|normal|starting|missed|double|extra|another"
    r"|increase|lower|"
    r"reduce|higher|adjust|change|my|the) (?:\w+ ){0,3}(?:dose|dosage|dosis)|(?:dose|dosage|dosis)\b.{0,30}(?:\?|for "
    r"(?:me|my|a))|"
    r"(?:can|could|should|may|is it (?:ok|okay|safe|fine|alright) to|if) (?:i |he |she |we |they |you |my \w+ "
    r")?(?:just )?(?:take|give|double|have|use) "
    r"(?:\w+ ){0,3}(?:two|three|four|2|3|4|more|another|extra|half|\d+ ?(?:mg|ml|pills?|tablets?))|"
    r"how many (?:mg|ml|milligrams|units|pills|tablets|drops)|(?:stop|quit|come off|taper|wean)\w* (?:\w+ "
    r"){0,3}(?:cold turkey|slowly|off)|"
    r"cu[aá]nt[oa]s? .{0,40}\b(?:tomar|dar|tomo|doy|puedo|mg|ml|gotas|pastillas)|cada cu[aá]nto .{0,30}(?:tom|dar"
    r"|doy))",
    re.I | re.S,
)
_AMOUNT = re.compile(r"\b\d+(?:[.,]\d+)? ?(?:mg|mcg|µg|ml|iu|units|grams?|g|unidades|gotas)\b", re.I)
_PREGNANT = re.compile(
    r"(?<!get )(?<!getting )(?<!got )(?<!become )(?<!not )(?<!isn't )(?<!quedar )\b(?:pregnant|preggo|preggers"
    r"|embarazad[ao]s?)\b|"
    r"\b(?:during|while|in) (?:the |my |her )?(?:early |late )?(?:pregnancy|(?:first|second|third|1st|2nd|3rd) "
    r"trimester)\b|"
    r"\b(?:breast ?-?feed(?:ing)?|nursing (?:mothers?|my|a|the|mom)|i(?:'| a)m nursing|lactan(?:cia|do)|dando (?:el "
    r")?pecho|dar (?:el )?pecho|"
    r"en el embarazo|durante el embarazo|expecting a baby|\d+ ?(?:weeks?|wks?|months?|mos?) (?:along|preg\w*))\b",
    re.I,
)
_NOT_NOW = re.compile(
    r"\b(?:when|while|since|after|before) (?:i|she|my \w+) (?:was|were|got|had been) pregnant|\bif (?:i(?:'| a)m|she "
    r"is|she's) pregnant|"
    r"\b(?:am|is|could|might|can|maybe) (?:i|she|my \w+|be|you) (?:be |get )?pregnant\b\W*(?:\?|$|or\b)|not pregnant"
    r"|trying to (?:get|become|be)",
    re.I,
)
_CHILD = re.compile(
    r"\b(?:baby|babies|newborns?|infants?|toddlers?|preschooler|kids?|children|child|beb[eé]s?|niñ[oa]s?|hij[oa] de \d|"
    r"(?<!\d)(?:[1-9]|1[0-5])[- ]?(?:years?|yrs?|yr|y/?o|months?|mos?|mths?|weeks?|wks?|días?|meses"
    r"|años?)[- ]?(?:olds?|old)?\b(?= (?:old|son|daughter|boy|girl|kid|child))|"
    r"(?:son|daughter|grandson|granddaughter|nephew|niece|boy|girl|he|she|hij[oa]|niet[oa])\W{0,3}(?:is |who is "
    r"|who's |aged? |'s |tiene |de )?(?:only |just )?"
    r"(?:[1-9]|1[0-5])\b(?! (?:weeks|months|days)? ?(?:ago|pregnant)))",
    re.I,
)  # fmt: skip
_TREATED = re.compile(
    r"\b(?:give|gave|giving|given|take|taking|have|safe|use|put|treat|drops|syrup|dose|allowed|suppositor\w+|tomar"
    r"|dar(?:le)?|doy|toma)\b",
    re.I,
)
_TOGETHER = re.compile(
    r"\b(?:interact\w*|interacc\w*|mix(?:ing|ed)?|combin\w+|together|along with|at the same time|same time as|on top "
    r"of|juntos?|mezclar|"
    r"(?:take|taking|took|use|drink|drinking|have|eat|safe|ok|okay|tomar|beber) .{1,60}?\b(?:with|while (?:i(?:'| "
    r"a)m )?(?:on|taking)|if i(?:'| a)m (?:on|taking)|on|con)\b)",
    re.I,
)
_BESIDE = re.compile(
    r"\b(?:alcohol|beer|wine|drink(?:ing)?|grapefruit|weed|marijuana|cannabis|cbd|toronja|pomelo|cerveza|vino)\b", re.I
)
_ASKED = {
    "age": re.compile(r"\b\d{1,3}[- ]?(?:years?|yrs?|y/?o|yo|months?|mos?|weeks?|años?|meses)\b|\b(?:aged?|i am|i'm"
    r"|he's|she's|is) \d{1,3}\b|\b\d{1,2} ?[mf]\b", re.I),
    "weight": re.compile(r"\b\d+(?:[.,]\d+)? ?(?:kg|kilos?|lbs?|pounds|libras)\b", re.I),
    "strength": _AMOUNT,
    "other medicines": re.compile(r"\b(?:also (?:take|on|taking)|no other (?:meds|medic\w+)|already (?:take|on"
    r"|taking))\b", re.I),
    "weeks of pregnancy": re.compile(r"\b\d+ ?(?:weeks?|wks?|months?|semanas|meses)\b|\btrimester\b", re.I),
}  # fmt: skip
_NEEDED = {
    "dose": ("age", "weight", "strength", "other medicines"),
    "pregnancy": ("weeks of pregnancy", "strength", "other medicines"),
    "child": ("age", "weight", "strength"),
    "interaction": ("strength", "other medicines"),
}


def verdict(messages: Sequence[Message]) -> Verdict:
    """Fires with `kind` `pregnancy`, `child`, `interaction` or `dose`: the first that holds for the user's turns."""
    turns = [message.content for message in messages if message.role == "user" and message.content.strip()]
    if not turns:
        raise ValueError("no user turn to look at")
    kind = _kind(turns[-1])
    if len(turns[-1].split()) <= TERSE_WORDS and (_MEDICINE.search(turns[-1]) or _DOSE.search(turns[-1])):
        kind = _kind("\n".join(turns[-3:])) or kind
    if not kind:
        return Verdict("advice", False, 0.0, "no individual advice asked for")
    lacking = missing("\n".join(turns), kind)
    reason = f"individual advice: {kind}" + (f"; not said: {', '.join(lacking)}" if lacking else "")
    return Verdict("advice", True, 1.0, reason, kind)


def missing(text: str, kind: str) -> tuple[str, ...]:
    """What would have to be asked before anybody could advise on `kind`, and is not in `text`."""
    return tuple(what for what in _NEEDED[kind] if not _ASKED[what].search(text))


def _kind(text: str) -> str:
    medicines = {match.group().lower() for match in _MEDICINE.finditer(text)}
    doses = bool(_DOSE.search(text)) and (bool(medicines) or bool(_AMOUNT.search(text)))
    treated = bool(medicines) or doses
    if treated and _PREGNANT.search(_NOT_NOW.sub(" ", text)):
        return "pregnancy"
    if treated and _CHILD.search(text) and (doses or _TREATED.search(text)):
        return "child"
    if medicines and _TOGETHER.search(text) and len(medicines) + bool(_BESIDE.search(text)) > 1:
        return "interaction"
    return "dose" if doses else ""
