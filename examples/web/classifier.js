// The model: samples -> logits, computed by a worker so that the page stays responsive.

const SCORES = {
  multi_label_classification: (logits) => logits.map((value) => 1 / (1 + Math.exp(-value))),
  single_label_classification: (logits) => {
    const largest = Math.max(...logits);
    const odds = logits.map((value) => Math.exp(value - largest));
    const sum = odds.reduce((total, value) => total + value, 0);
    return odds.map((value) => value / sum);
  },
};

export class Classifier {
  /** Loads what `build_page.py` wrote beside this file. */
  static async load() {
    const classifier = new Classifier();
    classifier.about = await (await fetch("model.json")).json();
    // A worker takes its content security policy from its own address; from a blob it inherits the page's.
    const script = `import ${JSON.stringify(new URL("classifier_worker.js", import.meta.url).href)};`;
    const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    classifier.worker = new Worker(address, { type: "module" });
    await classifier.#ask(null);
    return classifier;
  }

  /** The logits of a clip, one for each of `about.labels`. */
  logits(samples) {
    return this.#ask(samples);
  }

  /** The scores of a clip, each in [0, 1]. */
  async scores(samples) {
    return SCORES[this.about.problem_type](await this.logits(samples));
  }

  #ask(samples) {
    const { port1, port2 } = new MessageChannel();
    return new Promise((resolve, reject) => {
      port1.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data.logits));
      this.worker.onerror = (event) => reject(new Error(event.message || "The runtime did not load."));
      this.worker.postMessage(samples, [port2]);
    });
  }
}
