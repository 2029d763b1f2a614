"""What a run tells: JSON for programs, one page that needs nothing else for people."""

import html
import json
import pathlib

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1b1f23; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-top: 1px solid #d0d7de; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0; }
dt { color: #57606a; } dd { margin: 0; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0 0; font-size: .85rem; }
.ran { color: #1a7f37; } .failed { color: #cf222e; font-weight: bold; } .skipped { color: #6e7781; }
@media (prefers-color-scheme: dark) { body { background: #0d1117; color: #e6edf3; } th, td { border-color: #30363d; } }
"""


def counts(report: dict) -> str:
    results = [one["result"] for one in report["cases"]]
    return ", ".join(f"{results.count(name)} {name}" for name in ("ran", "failed", "skipped"))


def text(value) -> str:
    return html.escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def pairs(values: dict) -> str:
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in values.items()) + "</dl>"


def row(one: dict) -> str:
    why = f"<pre>{text(one['why'])}</pre>" if "why" in one else ""
    return (f"<tr><td>{text(one['feature'])}</td><td><b>{text(one['case'])}</b><br>{text(one['about'])}</td>"
            f"<td class='{text(one['result'])}'>{text(one['result'])}</td><td>{pairs(one['figures'])}{why}</td>"
            f"<td>{text(one['took_s'])}</td></tr>")


def page(report: dict) -> str:
    head = {name: value for name, value in report.items() if name != "cases"}
    rows = "\n".join(row(one) for one in report["cases"])
    return (f"<!doctype html>\n<html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
            f"<title>fieldgate: hw-tests</title><style>{STYLE}</style>\n<h1>hw-tests: {text(counts(report))}</h1>\n"
            f"{pairs(head)}\n<table><tr><th>of</th><th>case</th><th>result</th><th>figures</th><th>seconds</th></tr>\n"
            f"{rows}\n</table>\n</html>\n")


def keep(report: dict, json_file: pathlib.Path | None, page_file: pathlib.Path | None):
    if json_file:
        json_file.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    if page_file:
        page_file.write_text(page(report))
