# What the scripts share: servers with the extension, and sessions on them. Sessions have names, from which their ids and
# tokens are derived. A session belongs to the user of the same name unless another is given.
package Presence;

use strict;
use warnings;
use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(server crash an_hour_later install sql login logout beat online eventually settled changes_of refused catalog same_catalog report rounds);

# The default database of the functions below.
our $database = 'postgres';

# Returns a server that preloads the extension, with these settings; it is not started yet.
sub server
{
	my ($name, %settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(allows_streaming => 'logical');
	my %all = (
		shared_preload_libraries => 'pg_presence',
		max_worker_processes => 20,
		log_statement => 'none',
		%settings);
	$node->append_conf('postgresql.conf', "$_ = '$all{$_}'") for sort keys %all;
	return $node;
}

# Installs the extension in a database, and waits until its worker serves it.
sub install
{
	my ($node, $db) = @_;
	sql($node, 'CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence', $db);
	settled($node, $db);
	return;
}

# Kills a server, and returns when the last of its processes has released its shared memory.
sub crash
{
	my $node = shift;
	my @processes = ($node->{_pid}, split /\n/, sql($node, 'SELECT pid FROM pg_stat_activity'));
	$node->kill9;
	for (1 .. 600)
	{
		return if !grep { kill 0, $_ } @processes;
		sleep 0.1;
	}
	die 'the processes of a killed server do not exit';
}

# Sets a server's clock ahead by an hour, which only a debug build supports.
sub an_hour_later
{
	my $node = shift;
	append_to_file($node->data_dir . '/presence_test.clock', 3600 * 1000000);
	return;
}

# Runs SQL as superuser and returns its result; an error ends the script.
sub sql
{
	my ($node, $sql, $db) = @_;
	return $node->safe_psql($db // $database, $sql);
}

# Waits until a condition holds; the test fails if it does not within some minutes.
sub eventually
{
	my ($node, $condition, $promise, $db) = @_;
	return ok($node->poll_query_until($db // $database, "SELECT $condition"), $promise);
}

# Waits until the worker has written every change made so far.
sub settled
{
	my ($node, $db) = @_;
	my $user = sql($node, 'SELECT user_id FROM presence.start_sessions(ARRAY[gen_random_uuid()])', $db);
	$node->poll_query_until($db // $database,
		"SELECT EXISTS (SELECT FROM presence.user_presence WHERE user_id = '$user')")
	  or die 'the worker writes no changes';
	sql($node, "SELECT presence.forget_user('$user')", $db);
	return;
}

sub id { my $name = shift; return "presence.presence_id('$name')"; }

# Starts a session of the user of the same name or of another user.
sub login
{
	my ($node, $session, $user, $db) = @_;
	$user //= $session;
	sql($node,
		"INSERT INTO presence.user_sessions (id, user_id, user_key, session_token)
		 VALUES (@{[id($session)]}, @{[id($user)]}, '$user', 'the secret token of $session')", $db);
	return;
}

sub logout { my ($node, $session, $db) = @_; return sql($node, "SELECT presence.end_session(@{[id($session)]})", $db); }
sub beat { my ($node, $session, $db) = @_; return sql($node, "SELECT presence.heartbeat(@{[id($session)]})", $db); }

# Returns the keys of all online users, in order.
sub online
{
	my ($node, $db) = @_;
	return sql($node, "SELECT coalesce(string_agg(user_key, ' ' ORDER BY user_key), '') FROM presence.online_users()", $db);
}

# Returns all changes of a user in the feed, in order.
sub changes_of
{
	my ($node, $user, $db) = @_;
	return sql($node,
		"SELECT coalesce(string_agg(status || ' (' || reason || ')', ', ' ORDER BY seq), '')
		 FROM presence.presence_changes WHERE user_id = @{[id($user)]}", $db);
}

# Asserts that a statement fails with this SQLSTATE and a detail or hint.
sub refused
{
	my ($node, $sql, $state, $promise, $db) = @_;
	my ($status, $out, $err) = $node->psql($db // $database, "\\set VERBOSITY verbose\n$sql");
	my $clear = $status != 0 && $err =~ /ERROR:  \Q$state\E: / && $err =~ /^(HINT|DETAIL):  \S/m;
	return ok($clear, $promise) || diag("$sql: $err");
}

# Returns a query for everything that defines the extension in a database, one line for each, without OIDs.
sub catalog
{
	return q{
	WITH members AS (
		SELECT classid, objid FROM pg_depend
		WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
		  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_presence')),
	tables AS (SELECT c.* FROM pg_class c JOIN members m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid),
	acls (kind, name, acl) AS (
		SELECT 'relation', oid::regclass::text, coalesce(relacl, acldefault('r', relowner)) FROM tables
		UNION ALL SELECT 'function', p.oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc p JOIN members ON classid = 'pg_proc'::regclass AND objid = p.oid
		UNION ALL SELECT 'type', t.oid::regtype::text, coalesce(typacl, acldefault('T', typowner)) FROM pg_type t JOIN members ON classid = 'pg_type'::regclass AND objid = t.oid
		UNION ALL SELECT 'column', attrelid::regclass || '.' || attname, attacl FROM pg_attribute JOIN tables t ON t.oid = attrelid)
	SELECT 'member ' || i.type || ' ' || i.identity || ': ' || coalesce(obj_description(objid, classid::regclass::name), '')
	FROM members, pg_identify_object(classid, objid, 0) i
	UNION ALL
	SELECT format('table %s: %s %s %s %s %s', oid::regclass, relkind, relowner::regrole, relrowsecurity, relforcerowsecurity, reloptions) FROM tables
	UNION ALL
	SELECT format('column %s.%s: %s %s %s %s %s', attrelid::regclass, attname,
		rank() OVER (PARTITION BY attrelid ORDER BY attnum), format_type(atttypid, atttypmod), attnotnull,
		pg_get_expr(adbin, adrelid), col_description(attrelid, attnum))
	FROM pg_attribute JOIN tables t ON t.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attnum > 0 AND NOT attisdropped
	UNION ALL
	SELECT format('constraint %s.%s: %s', conrelid::regclass, conname, pg_get_constraintdef(c.oid)) FROM pg_constraint c JOIN tables t ON t.oid = conrelid
	UNION ALL
	SELECT 'index ' || pg_get_indexdef(indexrelid) FROM pg_index JOIN tables t ON t.oid = indrelid
	UNION ALL
	SELECT format('trigger %s %s', pg_get_triggerdef(g.oid), tgenabled) FROM pg_trigger g JOIN tables t ON t.oid = tgrelid
	UNION ALL
	SELECT format('policy %s.%s: %s %s %s %s', polrelid::regclass, polname, polcmd, polroles::regrole[], pg_get_expr(polqual, polrelid),
		pg_get_expr(polwithcheck, polrelid)) FROM pg_policy JOIN tables t ON t.oid = polrelid
	UNION ALL
	SELECT 'function ' || pg_get_functiondef(p.oid) FROM pg_proc p JOIN members ON classid = 'pg_proc'::regclass AND objid = p.oid
	UNION ALL
	SELECT 'view ' || pg_get_viewdef(oid) FROM tables WHERE relkind = 'v'
	UNION ALL
	SELECT format('enum %s.%s', enumtypid::regtype, enumlabel) FROM pg_enum JOIN members ON classid = 'pg_type'::regclass AND objid = enumtypid
	UNION ALL
	SELECT format('grant on %s %s to %s: %s %s', kind, name, grantee::regrole, privilege_type, is_grantable) FROM acls, aclexplode(acl)
	UNION ALL
	SELECT 'dumped ' || unnest(extconfig)::regclass FROM pg_extension WHERE extname = 'pg_presence'
	UNION ALL
	SELECT format('extension %s %s %s', extversion, extnamespace::regnamespace, extrelocatable) FROM pg_extension WHERE extname = 'pg_presence'
	ORDER BY 1};
}

# Asserts that two catalogs are the same; prints their differences.
sub same_catalog
{
	my ($got, $expected, $promise) = @_;
	my %got = map { $_ => 1 } split /\n/, $got;
	my %expected = map { $_ => 1 } split /\n/, $expected;
	my @more = map { "more: $_" } grep { !$expected{$_} } sort keys %got;
	my @less = map { "less: $_" } grep { !$got{$_} } sort keys %expected;
	return ok($got eq $expected, $promise) || diag(join "\n", @more, @less);
}

# Prints what a script has measured.
sub report { my $text = shift; note("report: $text"); return; }

# Returns the number of rounds: few, or many in the soak form.
sub rounds { my ($quick, $soak) = @_; return $ENV{SOAK} ? $soak : $quick; }

1;
