/** Adds an item to a list that most often has one: an array that begins with its first item has room for no more. */
export function appended<T>(list: T[], item: T): T[] {
  if (list.length === 0) return [item];
  list.push(item);
  return list;
}

/** Takes an item out of a short list and keeps the order of the others; false when it is not in it. */
export function removeFrom<T>(list: T[], item: T): boolean {
  const at = list.indexOf(item);
  if (at === -1) return false;
  const last = list.length - 1;
  for (let next = at; next < last; next += 1) list[next] = list[next + 1] as T;
  list.length = last;
  return true;
}
