() => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const paint = (under, colour) => {
    pen.fillStyle = `rgb(${under.join(" ")})`; pen.fillRect(0, 0, 1, 1);
    pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  };
  const ground = (element) => {
    const above = element.parentElement ? ground(element.parentElement) : [255, 255, 255];
    return paint(above, getComputedStyle(element).backgroundColor);
  };
  const light = (rgb) => rgb.map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const problems = [];
  for (const element of document.body.querySelectorAll("*")) {
    if (!element.checkVisibility() || element.closest("canvas, option, summary::marker")) continue;
    const box = element.getBoundingClientRect();
    const name = `${element.tagName} #${element.id} ${element.className}`;
    if (box.width && box.right > innerWidth + 0.5) problems.push(`${name} ends at ${box.right}`);
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own && !["INPUT", "SELECT"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const under = ground(element);
    let opacity = 1;
    for (let e = element; e; e = e.parentElement) opacity *= getComputedStyle(e).opacity;
    const lights = [light(under), light(paint(under, style.color))].sort((a, b) => b - a);
    const contrast = (lights[0] + 0.05) / (lights[1] + 0.05);
    if (contrast < 4.5 || opacity < 1) problems.push(`${name} has ${contrast.toFixed(2)}, ${opacity}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) problems.push("the page scrolls sideways");
  return problems;
}
