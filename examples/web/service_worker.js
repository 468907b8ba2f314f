// Keeps the page's files in the browser: once it has loaded, it opens without a network.
importScripts("files.js"); // VERSION and FILES, which build_page.py writes

self.addEventListener("install", (event) => {
  const files = FILES.map((name) => new Request(name, { cache: "no-cache" })); // all of one version
  event.waitUntil(caches.open(VERSION).then((cache) => cache.addAll(files)));
});

self.addEventListener("activate", (event) => {
  const isOld = (name) => name.startsWith("hear-") && name !== VERSION;
  const clear = caches.keys().then((names) => Promise.all(names.filter(isOld).map((name) => caches.delete(name))));
  event.waitUntil(clear.then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const kept = caches.open(VERSION).then((cache) => cache.match(event.request, { ignoreSearch: true }));
  event.respondWith(kept.then((response) => response ?? fetch(event.request)));
});
