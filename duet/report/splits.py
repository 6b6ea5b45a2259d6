"""Tables 12 to 15: how the paper splits its budgets, with the average that the counts really give."""

from __future__ import annotations

from duet.budget import find_backbone, find_row
from duet.report.paper import PaperTable
from duet.report.render import Table

HEADER = ("Target", "Dominant", "Contextual", "Layers", "Ratios", "Average here", "Budget")


def split_table(table: PaperTable) -> Table:
    """The budgets of a table, with their computed averages (paper's convention: mean over the layers)."""
    backbone = find_backbone(table.backbone)
    rows, records = [], []
    notes = [note.text for note in table.notes]
    for name in table.budgets:
        entry = find_row(name)
        budget = entry.settings["both"]
        computed = budget.average(backbone)
        dominant, contextual = entry.printed or (None, None)
        layers, ratios = (", ".join(f"{value:g}" for value in values) for values in (budget.layers, budget.ratios))
        rows.append([f"{entry.target:g}", str(dominant), str(contextual), layers, ratios, f"{computed:.2f}", name])
        records.append(
            {
                "table": table.number,
                "target": entry.target,
                "dominant": dominant,
                "contextual": contextual,
                "layers": list(budget.layers),
                "ratios": list(budget.ratios),
                "average": computed,
                "budget": name,
            }
        )
        if entry.note:
            notes.append(f"{name}: {entry.note}")
    return Table(f"Table {table.number}. {table.title}", HEADER, rows, records, notes)
