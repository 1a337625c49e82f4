import re

import pytest

from kneessl.report.checklist import CLAIM, STARD_AI, Anchor, checklists
from kneessl.report.evaluation_page import SECTIONS

KINDS = {
    "summary", "counts", "models", "fixed", "internal", "external", "unknown", "data", "curves", "views", "settings",
    *SECTIONS,
}  # fmt: skip
"""All that a page may have."""


def whole_page():
    return {kind: [Anchor(kind, f"id-{kind}")] for kind in KINDS}


def test_stard_ai_has_its_40_items_in_48_rows():
    rows = [item.number for item in STARD_AI]
    assert len(rows) == len(set(rows)) == 48
    assert sorted({int(re.match(r"\d+", row)[0]) for row in rows}) == list(range(1, 41))
    split = {n: [r[len(n) :] for r in rows if re.fullmatch(n + "[a-z]", r)] for n in ("15", "16", "17", "26", "40")}
    assert split == {"15": ["a", "b", "c", "d"], "16": ["a", "b", "c"], "17": ["a", "b"], "26": ["a", "b"],
                     "40": ["a", "b"]}  # fmt: skip
    assert all(row.isdigit() for row in rows if row[:2] not in split)


def test_claim_has_its_44_items_in_order():
    assert [item.number for item in CLAIM] == [str(n) for n in range(1, 45)]


@pytest.mark.parametrize("item", [*STARD_AI, *CLAIM], ids=lambda item: f"{item.number} {item.asks[:20]}")
def test_an_item_can_be_answered_or_is_left_to_a_person(item):
    assert set(item.where) <= KINDS, "a section that no page has would leave the item open for ever"
    assert item.where or not item.rest


@pytest.mark.parametrize("missing", sorted(KINDS))
def test_what_a_page_lacks_is_left_to_a_person(missing):
    page = whole_page()
    full = {(c.title, row.item.number): row for c in checklists(page) for row in c.rows}
    for empty in ({kind: anchors for kind, anchors in page.items() if kind != missing}, page | {missing: []}):
        for one in checklists(empty):
            for row in one.rows:
                before = full[one.title, row.item.number]
                if missing in row.item.where:
                    assert (row.status, row.links) == ("open", [])
                    assert before.status != "open"
                else:
                    assert row == before


def test_links_are_the_pages_own_in_the_items_order():
    page = whole_page() | {"decisions": [Anchor("decisions (a)", "a"), Anchor("decisions (b)", "b")]}
    stard, claim = checklists(page)
    accuracy = next(row for row in stard.rows if row.item.number == "31")
    assert [link.id for link in accuracy.links] == ["id-discrimination", "a", "b"]
    assert accuracy.status == "answered"
    cutoffs = next(row for row in stard.rows if row.item.number == "15c")
    assert cutoffs.status == "in part"
    assert next(row for row in claim.rows if row.item.number == "44").status == "open"


def test_counts_add_up():
    for one in checklists(whole_page()):
        assert one.count("answered") + one.count("in part") + one.count("open") == len(one.rows)
        assert one.count("answered", "in part", "open") == len(one.rows)
    assert [one.count("open") for one in checklists({})] == [48, 44]
