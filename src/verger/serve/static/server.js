// Sends photos to the server, and says in plain words what went wrong.
const PLAIN = {
  "not an image": "This file is not a photo that can be read. A JPEG or PNG always works.",
  "unsupported format": "Photos of this format cannot be read. A JPEG or PNG always works.",
  empty: "This file is empty.",
  truncated: "This photo is incomplete: a part of it was lost on the way.",
  "too many pixels": "This photo has too many pixels. Choose a smaller one.",
  "decode time-out": "This photo takes too long to open. Choose another.",
  "decoder crashed": "This photo is damaged. Choose another.",
  "too large": "This photo is too large to be sent. Choose a smaller one.",
  "too slow": "The photo took too long to arrive. Try again where the connection is better.",
  busy: "Many photos are being looked at now. Try again in a few seconds.",
  full: "No more answers are taken. Please tell whoever runs this page.",
  "not a label": "This name cannot be taken: use 1 to 100 letters.",
  unreachable: "The server cannot be reached. Check your connection, and try again.",
};

/** An error that a visitor can understand, by the server's word for it. */
export class Problem extends Error {
  constructor(code) {
    super(PLAIN[code] ?? "Something went wrong. Try again, or with another photo.");
    this.code = code;
  }
}

/** Post a body, and give the JSON of the answer; `onShare` is told how much has been sent, 0 to 1. */
export function post(address, body, signal, onShare) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch cannot say how much has been sent
    request.open("POST", address);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => onShare?.(event.loaded / event.total);
    request.onload = () => {
      if (request.status < 300) resolve(request.response);
      else reject(new Problem(request.response?.error));
    };
    request.onerror = () => reject(new Problem("unreachable"));
    request.onabort = () => reject(new Problem("stopped"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}
