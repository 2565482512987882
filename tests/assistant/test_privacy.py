"""Personal data goes, what the message is about stays."""

import pytest

from medtune.assistant.privacy import mask

PERSONAL = {
    "mail me at j.smith-2@mail.example.co.uk please": ("email", "j.smith-2@mail.example.co.uk"),
    "call me on 214-555-0199 after five": ("phone", "214-555-0199"),
    "my cell: (415) 555 2671": ("phone", "(415) 555 2671"),
    "I'm in London, +44 20 7946 0958": ("phone", "+44 20 7946 0958"),
    "mi móvil es el 612 34 56 78": ("phone", "612 34 56 78"),
    "I live at 12 Oak Street, apt 4": ("address", "12 Oak Street, apt 4"),
    "we are at 4411 W Maple Grove Ave": ("address", "4411 W Maple Grove Ave"),
    "send it to PO Box 1123": ("address", "PO Box 1123"),
    "Dallas, TX 75001": ("address", "TX 75001"),
    "my postcode is SW1A 2AA": ("address", "SW1A 2AA"),
    "vivo en la Calle Mayor 12": ("address", "Calle Mayor 12"),
    "MRN: A-10-4482": ("id", "A-10-4482"),
    "my member id is XJH 482 1193 02": ("id", "XJH 482 1193 02"),
    "policy number 88-1203-44": ("id", "88-1203-44"),
    "SSN 123-45-6789": ("id", "123-45-6789"),
    "my NHS number is 943 476 5919": ("id", "943 476 5919"),
    "it is 943 476 5919": ("id", "943 476 5919"),
    "DNI 12345678Z": ("id", "12345678Z"),
    "IBAN GB82 WEST 1234 5698 7654 32": ("id", "GB82 WEST 1234 5698 7654 32"),
    "charge 4111 1111 1111 1111": ("card", "4111 1111 1111 1111"),
    "DOB 04/12/1961": ("birth_date", "04/12/1961"),
    "I was born on 4 March 1961": ("birth_date", "4 March 1961"),
    "nací el 3 de mayo de 1980": ("birth_date", "3 de mayo de 1980"),
    "my name is john fitzgerald": ("name", "john fitzgerald"),
    "I'm Peter Brown and my knee hurts": ("name", "Peter Brown"),
    "Dr. Patel gave me statins": ("name", "Patel"),
    "my son Tyler has a rash": ("name", "Tyler"),
    "me llamo Lucía Ortega": ("name", "Lucía Ortega"),
    "What helps?\nRegards,\nAnna Kovacs": ("name", "Anna Kovacs"),
}


@pytest.mark.parametrize(("text", "expected"), PERSONAL.items())
def test_personal_data_is_masked(text, expected):
    kind, secret = expected
    masked, counts = mask(text)
    assert secret not in masked
    assert f"[{kind.upper()}]" in masked
    assert counts == {kind: 1}


@pytest.mark.parametrize(
    "text",
    [
        "I was diagnosed with Parkinson's in 2010",
        "My son has Down syndrome and Hashimoto",
        "my mother Alzheimer's got worse",
        "my husband Crohn's is flaring",
        "Could it be Lou Gehrig disease or Guillain-Barre?",
        "I'm Type Two diabetic",
        "My TSH is 4.5, platelets 150000, CA 125 is 35 and PSA 4.2",
        "I take 500 mg metformin 2 times a day for 14 days and vitamin B12 5000 mcg",
        "BP was 120/80 at 10:30 on 03/04/2019",
        "my surgery was on March 4, 2019",
        "I am 67 years old, 5'7\" and 179.4 lbs",
        "I have 2 kids and drive 10 miles on the road to work",
        "insurance covers 80% of 20000 dollars",
        "call me at 5 pm, the hospital is 20 minutes away",
        "the case in 2010 was worse",
        "my wife Tylenol did not help",
        "Thanks in advance for your help",
        "oxygen 91, pulse 110, temperature 38.5, sugar 312",
    ],
)
def test_what_the_message_is_about_stays(text):
    assert mask(text) == (text, {})


def test_a_name_is_masked_wherever_it_is_mentioned():
    masked, counts = mask("My daughter Emily is 4. Emily's rash itches. What can Emily take?")
    assert masked == "My daughter [NAME] is 4. [NAME] rash itches. What can [NAME] take?"
    assert counts == {"name": 3}


def test_a_wrong_checksum_is_no_card_and_no_identity_number():
    assert mask("value 4111 1111 1111 1112")[1] == {}
    assert mask("code 12345678A")[1] == {}


def test_masking_twice_changes_nothing():
    once, _ = mask("I'm Peter Brown, 12 Oak Street, 214-555-0199, p@b.org")
    assert mask(once) == (once, {})
