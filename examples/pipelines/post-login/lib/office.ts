import ipaddr from 'ipaddr.js';

// isOffice says whether an address is in one of the office's ranges.
export function isOffice(ip: string, ranges: string): boolean {
  const address = ipaddr.process(ip);
  return ranges.split(' ').some((range) => {
    const [base, bits] = ipaddr.parseCIDR(range);
    return base.kind() === address.kind() && address.match(base, bits);
  });
}
