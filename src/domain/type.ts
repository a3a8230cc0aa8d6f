/** What kinds of domains there are. */
export const domainTypes = ['pv', 'pvh', 'hvm'] as const;
export type DomainType = (typeof domainTypes)[number];
