create table goods (id integer primary key, name text, price integer);
create index goods_by_name on goods (name);
begin;
with recursive n (i) as (select 0 union all select i + 1 from n where i < 999)
insert into goods (name, price) select 'tea', i from n union all select 'coffee', i % 4 from n;
commit;
begin;
delete from goods;
rollback;
vacuum;
.backup /work/copy.db
.exit 0
