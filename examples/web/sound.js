// Sounds as samples at the model's rate: of a file, or of the microphone as it hears them.
import { Decimator, FACTOR } from "./resampling.js";

const REFUSALS = {
  NotAllowedError: "The microphone must be allowed, found that it is not: allow it for this page, or choose a file.",
  NotFoundError: "There must be a microphone, found none: connect one, or choose a file.",
  NotSupportedError: "This browser cannot resample the microphone: record with another program, and choose the file.",
};

/** A clip that may still grow: samples in [-1, 1] at `rate` Hz. */
export class Clip {
  constructor(rate, maxSeconds) {
    this.rate = rate;
    this.buffer = new Float32Array(Math.ceil(maxSeconds * rate));
    this.length = 0;
    this.isComplete = false;
    this.#expectMore();
  }

  get seconds() {
    return this.length / this.rate;
  }

  get isFull() {
    return this.length === this.buffer.length;
  }

  /** Appends samples, as many as there is room for, unless the clip is complete. */
  push(samples) {
    if (this.isComplete) return;
    const fitting = samples.subarray(0, this.buffer.length - this.length);
    this.buffer.set(fitting, this.length);
    this.length += fitting.length;
    this.#tell();
  }

  end() {
    this.isComplete = true;
    this.#tell();
  }

  /** Resolves when the clip holds so many samples, or is complete. */
  async holds(length) {
    while (!this.isComplete && this.length < length) await this.more;
  }

  slice(start, end) {
    return this.buffer.slice(start, Math.min(end, this.length));
  }

  #expectMore() {
    this.more = new Promise((resolve) => (this.resolve = resolve));
  }

  #tell() {
    this.resolve();
    this.#expectMore();
  }
}

/** The rate that the head of a wav file states: browsers do not say at which rate a file is. */
function wavRate(bytes) {
  const head = new DataView(bytes);
  const isWav = bytes.byteLength > 28 && head.getUint32(0) === 0x52494646; // "RIFF"
  return isWav ? head.getUint32(24, true) : null;
}

/** Decodes a file to a clip; its channels are averaged. */
export async function decode(bytes, rate, maxSeconds) {
  const isAtRate = wavRate(bytes) === rate;
  let audio;
  try {
    audio = await new OfflineAudioContext(1, 1, isAtRate ? rate : FACTOR * rate).decodeAudioData(bytes);
  } catch {
    throw new Error("The file must be audio that this browser reads, found other content: convert it to wav or mp3.");
  }
  if (audio.duration > maxSeconds) {
    throw new Error(`A clip must last at most ${maxSeconds} s, found ${audio.duration.toFixed(1)} s: cut it.`);
  }
  const samples = new Float32Array(audio.length);
  for (let channel = 0; channel < audio.numberOfChannels; channel++) {
    audio.getChannelData(channel).forEach((value, i) => (samples[i] += value / audio.numberOfChannels));
  }
  const clip = new Clip(rate, audio.duration);
  const decimator = new Decimator();
  for (const part of isAtRate ? [samples] : [decimator.push(samples), decimator.end()]) clip.push(part);
  clip.end();
  return clip;
}

/** Records to a clip until it is full or the function that this returns is called. */
export async function record(clip) {
  if (!navigator.mediaDevices) throw new Error("To record, the page must be served by https or from localhost.");
  let stream, context;
  const stop = () => {
    if (clip.isComplete) return;
    stream?.getTracks().forEach((track) => track.stop());
    context?.close();
    clip.end();
  };
  try {
    const asHeard = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio: asHeard });
    context = new AudioContext({ sampleRate: FACTOR * clip.rate });
    await context.audioWorklet.addModule("recorder.js");
    const mono = { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" };
    const recorder = new AudioWorkletNode(context, "recorder", mono);
    const decimator = new Decimator();
    recorder.port.onmessage = ({ data }) => {
      clip.push(decimator.push(data));
      if (clip.isFull) stop();
    };
    context.createMediaStreamSource(stream).connect(recorder);
  } catch (error) {
    stop();
    throw new Error(REFUSALS[error.name] ?? `The microphone could not be read: ${error.message}`);
  }
  return stop;
}
