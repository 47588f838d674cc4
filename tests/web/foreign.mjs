// Opens a page of another site that tries to use a server of `verger serve`; prints as JSON what the
// server answered, and what the page could read of it.
// usage: node foreign.mjs CHROMIUM ADDRESS HOST PHOTO   HOST: the name of the other site
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import puppeteer from "puppeteer-core";

const [chromium, address, host, photo] = process.argv.slice(2);
const html = `<!doctype html><title>other</title><a href="${address}">a link</a>
  <form method="post" enctype="multipart/form-data" action="${address}predict"><input name="photo" value="x"></form>`;
const site = createServer((_, response) => response.setHeader("Content-Type", "text/html").end(html));
await new Promise((ready) => site.listen(0, host, ready));
const home = `http://${host}:${site.address().port}/`;
const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"] });
const page = await browser.newPage();
const network = await page.createCDPSession();
const sent = {}, statuses = []; // the two events come in any order
network.on("Network.requestWillBeSent", ({ requestId, request }) => (sent[requestId] = request));
network.on("Network.responseReceivedExtraInfo", (event) => statuses.push(event));
await network.send("Network.enable");
await page.goto(home);
const read = await page.evaluate(async (address, bytes) => {
  const photo = Uint8Array.from(atob(bytes), (character) => character.charCodeAt(0));
  const form = new FormData();
  form.append("photo", new Blob([photo]));
  const read = [];
  const tries = [
    ["predict", { method: "POST", body: photo, headers: { "Content-Type": "text/plain" }, mode: "no-cors" }],
    ["predict", { method: "POST", body: form }],
    ["predict", { method: "POST", body: form, mode: "no-cors" }],
    ["health", {}],
  ];
  for (const [path, options] of tries) {
    try {
      const text = await (await fetch(address + path, options)).text();
      if (text) read.push(text);
    } catch { /* refused, as it should be */ }
  }
  const image = new Image();
  await new Promise((done) => {
    image.onload = () => done(read.push("picture"));
    image.onerror = done;
    image.src = address + "known/0.jpg";
  });
  return read;
}, address, (await readFile(photo)).toString("base64"));
await Promise.all([page.waitForNavigation(), page.$eval("form", (form) => form.submit())]);
await page.goto(home);
await Promise.all([page.waitForNavigation(), page.click("a")]);
const title = await page.title();
await browser.close();
site.close();
const answers = statuses
  .filter(({ requestId }) => sent[requestId]?.url.startsWith(address))
  .map(({ requestId, statusCode }) => {
    const { method, url } = sent[requestId];
    return [method, new URL(url).pathname, statusCode];
  });
console.log(JSON.stringify({ answers, read, title }));
