/** Random choices that are the same for the same seed. */
export class Dice {
  constructor(private state: number) {}

  /** From 0 to n - 1. */
  below(n: number): number {
    this.state = (Math.imul(this.state ^ (this.state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) | 0;
    return ((this.state ^ (this.state >>> 13)) >>> 0) % n;
  }
}
