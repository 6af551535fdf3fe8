// A chart as SVG: one bar for each colour.
const colours = JSON.parse(std.loadFile("/in/bars.json"));
const [work, started] = [std.getenv("WORK"), os.now()];
const bars = colours.map((fill, at) => `<rect x="${at * 10}" width="10" height="20" fill="${fill}"/>`);
const file = std.open(`${work}/chart.svg`, "w");
file.puts(`<svg xmlns="http://www.w3.org/2000/svg" width="${colours.length * 10}" height="20">${bars.join("")}</svg>`);
file.close();
os.sleep(20);
const slept = os.now() - started >= 20;
console.log(JSON.stringify({ args: scriptArgs, slept, in: os.readdir("/in")[0].filter((name) => name.endsWith(".json")) }));
