"""A bar for each target: calls per second as a ratio to bare Pingora, by cell."""

from html import escape

ROW, LABEL, WIDTH, GAP = 18, 210, 420, 34


def bars(found, bare, rps):
    cells = [cell for cell in found.cells if cell[1] == 32] or found.cells
    top = max((m for cell in cells for m in medians(found, cell, bare, rps).values()), default=1)
    lines, y = [], 24
    for cell in cells:
        lines.append(f'<text x="8" y="{y}" font-weight="bold">{escape(cell[0])}, {cell[1]} connections</text>')
        y += 8
        for target, value in medians(found, cell, bare, rps).items():
            ours = target.startswith("oakallow")
            width = max(1, value / top * WIDTH)
            lines.append(f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(target)}</text>')
            lines.append(f'<rect x="{LABEL}" y="{y + 2}" width="{width:.1f}" height="{ROW - 4}" fill="{"#2f6f4f" if ours else "#9aa5b1"}"/>')
            lines.append(f'<text x="{LABEL + width + 6:.1f}" y="{y + 13}">{value:.2f}</text>')
            y += ROW
        y += GAP
    style = 'font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + 60}" height="{y}" {style}>'
    title = "<title>Calls per second, as a ratio to bare Pingora</title>"
    return "\n".join([head, title, '<rect width="100%" height="100%" fill="white"/>', *lines, "</svg>", ""])


def medians(found, cell, bare, rps):
    from .report import median
    all_ratios = {target: found.ratios(cell, target, bare, rps) for target in found.targets}
    return {target: median(ratios) for target, ratios in all_ratios.items() if ratios}
