const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Most that there is room for in a badge. */
const MOST = 99;

/** Such an hour of the day of a time, here. */
const noon = (time: number) => new Date(time).setHours(12);

/** What writes numbers and times in one language. */
export interface Words {
  /** A count, up to what a badge has room for: `99+`. */
  count(count: number): string;
  /** `one`, `few`, `other`, …: which form of a text a count needs. */
  form(count: number): string;
  /** How long ago, up to a week; then the date. */
  ago(time: number, now: number): string;
  /** Date and time. */
  exact(time: number): string;
}

/** Those of a language; of the browser's own where there is no such language. */
export function words(language: string | undefined): Words {
  let locale: string | undefined;
  try {
    [locale] = Intl.getCanonicalLocales(language || []);
  } catch {
    // What a page calls its language may be no tag.
  }
  const relative = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });
  const date = new Intl.DateTimeFormat(locale, { dateStyle: "medium" });
  const exact = new Intl.DateTimeFormat(locale, { dateStyle: "full", timeStyle: "short" });
  const number = new Intl.NumberFormat(locale);
  const plural = new Intl.PluralRules(locale);
  return {
    count: (count) => (count > MOST ? `${number.format(MOST)}+` : number.format(count)),
    form: (count) => plural.select(count),
    exact: (time) => exact.format(time),
    ago(time, now) {
      // A clock that is behind makes nothing come from the future.
      const age = Math.max(0, now - time);
      if (age < MINUTE) return relative.format(0, "second");
      if (age < HOUR) return relative.format(-Math.floor(age / MINUTE), "minute");
      if (age < DAY) return relative.format(-Math.floor(age / HOUR), "hour");
      // By the calendar, as "yesterday" is; a day in which the clocks change has other hours.
      const days = Math.max(1, Math.round((noon(now) - noon(time)) / DAY));
      if (days < 7) return relative.format(-days, "day");
      return date.format(time);
    },
  };
}
