/** The form of a uuid: in lower case, as this program writes it, and as others may. */
export const lowerUuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
export const anyUuid = new RegExp(lowerUuid.source, 'i');
