// Keeps the page's files, so that it works without a network after the first visit.
// Caches belong to the origin, on which there may be other sites: ours begin with our address.
const ours = `verger ${registration.scope} `;
const cacheName = ours + version;

async function keep() {
  const cache = await caches.open(cacheName);
  await cache.addAll(kept.map((name) => new Request(name, { cache: "no-cache" }))); // all of one version
}

async function keepPictures() {
  const cache = await caches.open(cacheName);
  for (const name of pictures) {
    await cache.add(name).catch(() => {}); // one that is missing is shown as an empty frame
  }
}

async function activate() {
  for (const name of await caches.keys()) {
    if (name.startsWith(ours) && name !== cacheName) await caches.delete(name);
  }
  await clients.claim();
  keepPictures();
}

async function answer(request) {
  const found = await caches.match(request, { cacheName, ignoreSearch: true });
  return found ?? fetch(request);
}

addEventListener("install", (event) => event.waitUntil(keep()));
addEventListener("activate", (event) => event.waitUntil(activate()));
addEventListener("fetch", (event) => {
  if (event.request.method === "GET") event.respondWith(answer(event.request));
});
