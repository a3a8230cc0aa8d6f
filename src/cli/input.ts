/** Fields that verbs' inputs are made of. */
import * as z from 'zod';
import { parseSeconds } from './parse.js';

export const text = z.string();
export const texts = z.array(z.string());
export const flag = z.boolean().default(false);
export const maybeText = z.string().optional();
/** A number of seconds, as milliseconds. */
export const maybeSeconds = z.string().transform(parseSeconds).optional();
