"""Uses the page of a running server in headless Chromium: drops a picture, asks, sees the answer stream, asks again, meets errors.

    pip install playwright
    python tests/serve_page.py http://127.0.0.1:8000 [CHROMIUM]

Takes the Chromium that is installed (CHROMIUM names another one) and downloads none.
"""

import base64
import pathlib
import shutil
import sys

from playwright.sync_api import expect, sync_playwright

PICTURES = pathlib.Path(__file__).parent.parent / "examples" / "pictures"

DROP = """([name, kind, data]) => {
    const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type: kind }));
    document.dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


def drop(page, name, kind="image/png", data=None):
    data = data if data is not None else (PICTURES / name).read_bytes()
    page.evaluate(DROP, [name, kind, base64.b64encode(data).decode()])


def ask(page, question):
    page.get_by_label("Question", exact=True).fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def main():
    url = sys.argv[1]
    chromium = sys.argv[2] if len(sys.argv) > 2 else shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme)
            problems, elsewhere = [], []
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", lambda request: request.url.startswith((url, "data:", "blob:")) or elsewhere.append(request.url))
            page.goto(url)
            expect(page.locator("#model")).not_to_be_empty()
            answers, mistakes = page.locator(".assistant"), page.locator(".error")

            drop(page, "red-circle.png")
            expect(page.locator("#shown img")).to_have_count(1)
            ask(page, "what shape is in the image?")
            expect(answers.nth(0)).to_contain_text("circle")
            expect(answers.nth(0).locator(".note")).to_contain_text("tokens")
            expect(page.locator("#shown img")).to_have_count(0)
            # A second turn knows the picture of the first.
            ask(page, "what color is the shape?")
            expect(answers.nth(1)).to_contain_text("red")
            expect(page.locator(".user img")).to_have_count(1)

            # What fails is said, and can be asked again.
            drop(page, "notes.txt", "text/plain", b"no picture")
            expect(mistakes.nth(0)).to_contain_text("notes.txt is no picture")
            drop(page, "broken.png", data=b"no picture either")
            ask(page, "and this?")
            expect(mistakes.nth(1)).to_contain_text("messages")
            expect(page.get_by_label("Question", exact=True)).to_have_value("and this?")
            page.get_by_title("Take it away").click()

            page.get_by_role("button", name="Options").click()
            page.get_by_label("Temperature").fill("7")
            ask(page, "too hot?")
            expect(mistakes.nth(2)).to_contain_text("temperature")
            page.get_by_label("Temperature").fill("0")
            page.get_by_label("Longest answer").fill("1")
            page.get_by_role("button", name="New").click()
            expect(page.locator(".turn")).to_have_count(0)
            ask(page, "is there a circle?")
            expect(answers.nth(0).locator(".note")).to_contain_text("+ 1 tokens")

            back = page.evaluate("getComputedStyle(document.body).backgroundColor")
            page.get_by_role("button", name="Light or dark").click()
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") != back, "one theme"
            assert not problems, problems
            assert not elsewhere, elsewhere
            page.close()
        browser.close()
    print("the page works, light and dark")


if __name__ == "__main__":
    main()
