import { PGlite } from '@electric-sql/pglite'
import { migrationTexts } from './migrate.ts'

const TABLES = `
  select format(E'create table %s (\n%s\n)%s;', c.oid::regclass,
    string_agg(format('  %s %s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
      case when a.attnotnull then ' not null' else '' end,
      case when d.adbin is null then '' else ' default ' || pg_get_expr(d.adbin, d.adrelid) end), E',\n' order by a.attnum),
    coalesce(' with (' || array_to_string(c.reloptions, ', ') || ')', '')) as text
  from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
  where c.relnamespace = 'runlane'::regnamespace and c.relkind = 'r' group by c.oid, c.reloptions order by c.oid::regclass::text`
const CONSTRAINTS = `
  select format('alter table %s add constraint %s %s;', conrelid::regclass, conname, pg_get_constraintdef(oid)) as text
  from pg_constraint where connamespace = 'runlane'::regnamespace and contype <> 'n' order by conrelid::regclass::text, conname`
const INDEXES = `
  select indexdef || ';' as text from pg_indexes
  where schemaname = 'runlane' and indexname not in (select conname from pg_constraint) order by indexname`
const TRIGGERS = `
  select pg_get_triggerdef(oid) || ';' as text from pg_trigger
  where tgrelid::regclass::text like 'runlane.%' and not tgisinternal order by tgname`
const VIEWS = `
  select format(E'create view %s.%s as\n%s', schemaname, viewname, definition) as text
  from pg_views where schemaname = 'runlane' order by viewname`
const FUNCTIONS = `
  select format('-- function %s(%s) returns %s', oid::regproc, pg_get_function_identity_arguments(oid),
    pg_get_function_result(oid)) as text
  from pg_proc where pronamespace = 'runlane'::regnamespace order by oid::regproc::text`

/** The schema that the migrations lead to, as SQL to read; made in an empty embedded database, so it needs no server. */
export async function dumpSchema(): Promise<string> {
  const database = new PGlite()
  for (const { text } of await migrationTexts()) await database.exec(text)
  const parts = ['-- What the migrations lead to. Generated: npm run generate.']
  for (const query of [TABLES, CONSTRAINTS, INDEXES, VIEWS, FUNCTIONS, TRIGGERS]) {
    const { rows } = await database.query<{ text: string }>(query)
    parts.push(rows.map((row) => row.text).join('\n\n'))
  }
  await database.close()
  return `${parts.join('\n\n')}\n`
}
