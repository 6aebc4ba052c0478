# Databases are created and dropped while their workers run: thirty of them with few worker slots, a template1 with the
# extension, and DROP, RENAME, SET TABLESPACE and TEMPLATE at any moment. PostgreSQL fails such a command after waiting 5
# seconds for another connection to the database, so the test is that the command succeeds.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Presence;
use Test::More;
use Time::HiRes qw(time);

my $node = server('databases',
	'presence.flush_interval' => '1s',
	max_worker_processes => 12, max_connections => 200);
$node->start;

sub worker_of
{
	my $db = shift;
	return sql($node, "SELECT count(*) FROM pg_stat_activity WHERE datname = '$db' AND backend_type = 'pg_presence worker'");
}
sub served
{
	my $db = shift;
	return $node->poll_query_until('postgres',
		"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '$db' AND backend_type = 'pg_presence worker')");
}

# Thirty databases, created from a template1 with the extension.
sql($node, 'CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence', 'template1');
my @many = map { "many$_" } 1 .. 30;
for my $db (@many)
{
	sql($node, "CREATE DATABASE $db");
	login($node, 'anna', 'anna', $db);
}
is(worker_of('template1'), '0', 'a template has no worker');
my @wrong = grep { online($node, $_) ne 'anna' || beat($node, 'anna', $_) ne 'ok' } @many;
is("@wrong", '', 'with fewer workers than databases every answer is right');
cmp_ok(sql($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_presence worker'"), '<=', 12, 'there are no more workers than slots');
is(scalar(grep { sql($node, 'SELECT 1', $_) ne '1' } @many), 0, 'and every database still takes connections');
logout($node, 'anna', $_) for @many;
@wrong = grep { online($node, $_) ne '' } @many;
is("@wrong", '', 'logouts count everywhere');
for my $db (@many[ 0 .. 24 ])
{
	sql($node, "DROP DATABASE $db");
}
for my $db (@many[ 25 .. 29 ])
{
	served($db) or last;
	settled($node, $db);
}
is(scalar(grep { worker_of($_) ne '1' } @many[ 25 .. 29 ]), 0, 'freed slots go to the databases that wait for one');
sql($node, "DROP DATABASE $_") for @many[ 25 .. 29 ];
sql($node, 'DROP EXTENSION pg_presence; DROP SCHEMA presence', 'template1');

# Creates a database with sessions whose heartbeats have to be flushed, so that its worker is busy.
sub busy
{
	my $db = shift;
	sql($node, "CREATE DATABASE $db");
	sql($node, 'CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence', $db);
	sql($node, 'SELECT count(*) FROM presence.start_sessions(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 2000)))', $db);
	keep_busy($db);
	return $db;
}
sub keep_busy
{
	my $db = shift;
	served($db);
	sql($node, 'SELECT presence.heartbeat_many(ARRAY(SELECT id FROM presence.user_sessions))', $db);
	return;
}

my $spaces = PostgreSQL::Test::Utils::tempdir_short();
mkdir "$spaces/one";
sql($node, "CREATE TABLESPACE other LOCATION '$spaces/one'");
my $times = rounds(10, 100);
# Returns whether a database's worker is flushing within two seconds; the next flush is due within one.
sql($node, q{CREATE FUNCTION flushes(db text) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		FOR attempt IN 1 .. 2000 LOOP
			PERFORM pg_stat_clear_snapshot();
			IF EXISTS (SELECT FROM pg_stat_activity WHERE datname = db AND state = 'active' AND query = 'flushing sessions') THEN
				RETURN true;
			END IF;
			PERFORM pg_sleep(0.001);
		END LOOP;
		RETURN false;
	END $$});
my ($longest, $hits, %failed) = (0, 0);
# Runs a command as soon as the worker is flushing.
sub attempt
{
	my ($what, $db, $command) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "SELECT flushes('$db');\nSELECT extract(epoch FROM clock_timestamp());\n$command");
	my ($hit, $began) = split /\n/, $out;
	$hits++ if $hit eq 't';
	$longest = time - $began if time - $began > $longest;
	push @{ $failed{$what} }, $err if $status != 0;
	return;
}
my $name = busy('busy');
for my $n (1 .. $times)
{
	keep_busy($name);
	attempt('RENAME', $name, "ALTER DATABASE $name RENAME TO busy$n");
	$name = "busy$n";
	keep_busy($name);
	attempt('SET TABLESPACE', $name, "ALTER DATABASE $name SET TABLESPACE " . ($n % 2 ? 'other' : 'pg_default'));
	keep_busy($name);
	attempt('TEMPLATE', $name, "CREATE DATABASE copy TEMPLATE $name");
	keep_busy('copy');
	attempt('DROP', 'copy', 'DROP DATABASE copy' . ($n % 2 ? ' WITH (FORCE)' : ''));
}
is("@{ $failed{$_} // [] }", '', "$_ $times times between and during flushes") for 'RENAME', 'SET TABLESPACE', 'TEMPLATE', 'DROP';
settled($node, $name);
is(sql($node, 'SELECT presence.online_count() = count(*) FROM presence.user_sessions WHERE is_active', $name), 't', 'and no session was lost');
cmp_ok($hits, '>', 0, 'some commands ran during a flush');
report(sprintf('RENAME, SET TABLESPACE, TEMPLATE and DROP %d times each, %d of %d during a flush, the longest %.1f s', $times, $hits, 4 * $times, $longest));

# A database without the extension is dropped at once, whatever the worker is doing.
for my $state ('idle', 'flushing', 'waiting on a lock')
{
	sql($node, 'CREATE DATABASE unrelated');
	my $holder = $node->background_psql($name);
	keep_busy($name) if $state eq 'flushing';
	$holder->query_safe('BEGIN; LOCK TABLE presence.user_sessions, presence.presence_changes IN ACCESS EXCLUSIVE MODE') if $state eq 'waiting on a lock';
	my ($status, undef, $err) = $node->psql('postgres', 'DROP DATABASE unrelated');
	is($status, 0, "an unrelated database is dropped while the worker is $state") || diag($err);
	$holder->quit;
}

# A schema of the same name that exists already, with another extension in it.
sql($node, 'CREATE DATABASE shared_schema');
my ($other) = split /\n/, sql($node, "SELECT name FROM pg_available_extension_versions WHERE relocatable AND trusted
	AND name IN ('citext', 'hstore', 'pg_trgm', 'pgcrypto', 'btree_gist') AND requires IS NULL ORDER BY 1");
sql($node, "CREATE SCHEMA IF NOT EXISTS presence; CREATE EXTENSION $other SCHEMA presence; CREATE TABLE presence.presence_notes (id int);
	CREATE EXTENSION pg_presence SCHEMA presence", 'shared_schema');
login($node, 'anna', 'anna', 'shared_schema');
settled($node, 'shared_schema');
is(online($node, 'shared_schema'), 'anna', "beside the extension $other in the same schema it works");
sql($node, 'DROP EXTENSION pg_presence', 'shared_schema');
is(sql($node, "SELECT count(*) FROM pg_class WHERE relname = 'presence_notes'", 'shared_schema'), '1', 'and DROP EXTENSION leaves other objects');
sql($node, 'CREATE TABLE presence.user_sessions (id int)', 'shared_schema');
my ($status, undef, $err) = $node->psql('shared_schema', 'CREATE EXTENSION pg_presence SCHEMA presence');
isnt($status, 0, 'an existing table of the same name is not adopted');
like($err, qr/already exists/, 'and the error names it');
done_testing();
