// What holds for every part of the page: names for screen readers, contrast, and no scrolling sideways.
import assert from "node:assert/strict";

/** Every control and picture has a name, ids are unique, headings leave out no level. */
export async function accessible(page, within = "body") {
  const problems = await page.locator(within).evaluate((root) => {
    const seen = (element) => element.checkVisibility() && !element.closest("[hidden]");
    const nameOf = (element) => {
      const labelled = (element.getAttribute("aria-labelledby") ?? "").split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join(" ");
      const labels = [...(element.labels ?? [])].map((label) => label.textContent).join(" ");
      return [element.getAttribute("aria-label"), labelled, labels, element.alt, /^(BUTTON|A|SUMMARY)$/.test(element.tagName) ? element.textContent : ""].some((name) => name?.trim());
    };
    const controls = [...root.querySelectorAll("input, select, textarea, button, a[href], summary, canvas, progress, [role=img], dialog[open]")].filter(seen);
    const nameless = controls.filter((element) => !nameOf(element)).map((element) => `without a name: ${element.outerHTML.slice(0, 120)}`);
    const pictures = [...root.querySelectorAll("img")].filter((image) => !image.hasAttribute("alt")).map((image) => `without alt: ${image.outerHTML.slice(0, 120)}`);
    const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
    const twice = ids.filter((id, at) => ids.indexOf(id) !== at).map((id) => `twice: #${id}`);
    const references = [...root.querySelectorAll("[aria-describedby], [aria-labelledby]")].flatMap((element) => `${element.getAttribute("aria-describedby") ?? ""} ${element.getAttribute("aria-labelledby") ?? ""}`.split(" "));
    // A field without a description may name one.
    const lost = references.filter((id) => id && !id.endsWith("-about") && !ids.includes(id)).map((id) => `refers to nothing: ${id}`);
    const levels = [...root.querySelectorAll("main h1, main h2, main h3")].filter(seen).map((heading) => Number(heading.tagName[1]));
    const leaps = levels.filter((level, at) => level > (levels[at - 1] ?? 0) + 1).map((level) => `a heading of level ${level} after ${levels}`);
    return [...nameless, ...pictures, ...twice, ...lost, ...leaps];
  });
  assert.deepEqual(problems, []);
}

/** Nothing is wider than the screen. */
export async function fits(page, what) {
  const wide = await page.evaluate(() => {
    if (document.documentElement.scrollWidth <= window.innerWidth) return [];
    return [...document.querySelectorAll("main *")].filter((element) => element.getBoundingClientRect().right > window.innerWidth + 1).map((element) => element.outerHTML.slice(0, 120)).slice(0, 5);
  });
  assert.deepEqual(wide, [], `${what}: wider than the screen`);
}

/** Every text has the contrast of WCAG's level AA: 4.5, or 3 where the text is large. */
export async function readable(page, what) {
  const faint = await page.evaluate(() => {
    const parse = (colour) => { const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number); return { rgb: [r, g, b], a }; };
    const luminance = (rgb) => rgb.map((value) => value / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)).reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
    const ground = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const { rgb, a } = parse(getComputedStyle(at).backgroundColor);
        if (a === 1) return rgb;
      }
      return [255, 255, 255];
    };
    const texts = [...document.querySelectorAll("body *")].filter((element) => element.checkVisibility() && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
    return texts.flatMap((element) => {
      const style = getComputedStyle(element), size = parseFloat(style.fontSize), isDisabled = element.matches(":disabled");
      const [a, b] = [luminance(parse(style.color).rgb), luminance(ground(element))].sort((x, y) => y - x);
      const contrast = (a + 0.05) / (b + 0.05), enough = size >= 24 || (size >= 18.66 && style.fontWeight >= 600) ? 3 : 4.5;
      return contrast < enough && !isDisabled ? [`${contrast.toFixed(2)}: ${element.outerHTML.slice(0, 100)}`] : [];
    });
  });
  assert.deepEqual(faint, [], `${what}: too faint`);
}
