/**
 * Promise.withResolvers for Node 20, which lacks it; build.ts inserts it into bundles. Remove it when
 * Node 20 is no longer supported.
 */
export function withResolvers<T>(): PromiseWithResolvers<T> {
  let settle!: Pick<PromiseWithResolvers<T>, "resolve" | "reject">;
  const promise = new Promise<T>((resolve, reject) => settle = { resolve, reject });
  return { promise, ...settle };
}
