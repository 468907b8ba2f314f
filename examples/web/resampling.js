// Resampling to a third. The browsers' own resamplers are made for voices and speed: Chromium's takes 3 to 6 dB off what
// lies between 6 and 8 kHz of a sound at 48 kHz, which changes the scores.

export const FACTOR = 3;
const HALF = 320; // samples on each side of a result
const CUTOFF = 0.96; // of the band that is kept
const TAPS = windowedSinc();

/** A low pass, by a Blackman window, whose taps sum to 1. */
function windowedSinc() {
  const taps = Float64Array.from({ length: 2 * HALF + 1 }, (_, i) => {
    const x = (Math.PI * (i - HALF) * CUTOFF) / FACTOR;
    const phase = (Math.PI * i) / HALF;
    return (x ? Math.sin(x) / x : 1) * (0.42 - 0.5 * Math.cos(phase) + 0.08 * Math.cos(2 * phase));
  });
  const sum = taps.reduce((total, tap) => total + tap, 0);
  return taps.map((tap) => tap / sum);
}

/** Takes a sound in blocks of any size, and keeps of the past what the next block needs. */
export class Decimator {
  pending = new Float32Array(HALF); // silence before the sound

  /** The samples at a third of the rate that these complete. */
  push(samples) {
    const all = new Float32Array(this.pending.length + samples.length);
    all.set(this.pending);
    all.set(samples, this.pending.length);
    const length = Math.max(0, Math.floor((all.length - TAPS.length) / FACTOR) + 1);
    const result = new Float32Array(length);
    for (let k = 0; k < length; k++) {
      let sum = 0;
      for (let j = 0; j < TAPS.length; j++) sum += TAPS[j] * all[FACTOR * k + j];
      result[k] = sum;
    }
    this.pending = all.slice(FACTOR * length);
    return result;
  }

  /** The last samples, with silence behind the sound. */
  end() {
    return this.push(new Float32Array(HALF));
  }
}
