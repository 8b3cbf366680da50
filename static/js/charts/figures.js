// Numbers and names as the charts write them.
const CENTS_FROM = 0.995;
const escaper = document.createElement("span");

export function usd(value) {
  if (value === 0) return "$0";
  if (value >= 1000) return `$${Math.round(value).toLocaleString("en-US")}`;
  if (value >= CENTS_FROM) {
    const whole = value >= 10 && Number.isInteger(value);
    return `$${whole ? value : value.toFixed(2).replace(/\.00$/, "")}`;
  }
  const digits = Number(value.toPrecision(2)).toFixed(12).replace(/0+$/, "");
  return `$${digits.replace(/\.(\d)$/, ".$10")}`;
}

export function signedUsd(value) {
  return value < 0 ? `\u2212${usd(-value)}` : usd(value);
}

export function safe(text) {
  escaper.textContent = text;
  return escaper.innerHTML;
}
