/** Promise.withResolvers for Node 20, which has none: build.ts puts it in. It can go when Node 20 does. */
export function withResolvers<T>(): PromiseWithResolvers<T> {
  let settle!: Pick<PromiseWithResolvers<T>, "resolve" | "reject">;
  const promise = new Promise<T>((resolve, reject) => settle = { resolve, reject });
  return { promise, ...settle };
}
