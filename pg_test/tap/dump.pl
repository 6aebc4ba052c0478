# What pg_dump dumps is restored in another database, in every format.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Presence;
use Test::More;

my $node = server('dump');
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE app');
$Presence::database = 'app';
install($node);
sql($node, q{
	CREATE ROLE web LOGIN; CREATE ROLE backend LOGIN; CREATE ROLE beacon LOGIN; CREATE ROLE dumper LOGIN;
	GRANT USAGE ON SCHEMA presence TO web, backend, beacon;
	SELECT presence.grant_client('web'), presence.grant_reader('web'), presence.grant_holder('beacon'), presence.grant_service('backend');
	GRANT pg_read_all_data TO dumper});
login($node, $_) for qw(anna bert cleo);
login($node, 'annas-phone', 'anna');
sql($node, q{UPDATE presence.user_sessions SET metadata = '{"device": "phone", "quote": "it''s \\\\ \"so\""}'
	WHERE id = presence.presence_id('annas-phone')});
logout($node, 'bert');
sql($node, "SELECT presence.release_session(presence.presence_id('cleo'), '10 ms')");
eventually($node, "NOT is_active FROM presence.user_sessions WHERE user_key = 'cleo'", 'there are a live, an ended and a timed-out session');
sql($node, q{SELECT presence.set_status('busy', 'in a meeting', user_id => presence.presence_id('anna')),
	presence.set_status(status_text => 'back on Monday', expires_in => '1 week', source => 'calendar', user_id => presence.presence_id('bert'))});
eventually($node, "count(*) = 2 FROM presence.user_presence WHERE status_text IS NOT NULL", 'what is declared is written');
settled($node);

# What has to be the same in the restored database.
my %same = (
	sessions => 'SELECT id, user_id, auth_id, session_token, is_active, created_at, expires_at, metadata, ended_at, user_key
		FROM presence.user_sessions ORDER BY id',
	statuses => "SELECT user_id, user_key, status, is_online, status_text, status_expires_at FROM presence.user_presence WHERE user_key IS NOT NULL ORDER BY user_id",
	declared => 'SELECT * FROM presence.declared_statuses ORDER BY user_id, source',
	catalog => catalog());
my %before = map { $_ => sql($node, $same{$_}) } keys %same;
cmp_ok(length $before{catalog}, '>', 10_000, 'there is a catalog to compare');
my $last = sql($node, 'SELECT seq FROM presence.presence_cursor()');

my $dir = $node->basedir;
my @formats = (
	[ plain => [ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/plain" ] ],
	[ custom => [ 'pg_restore', '--exit-on-error', '-d', 'custom', "$dir/custom" ] ],
	[ directory => [ 'pg_restore', '--exit-on-error', '--jobs=2', '-d', 'directory', "$dir/directory" ] ]);
for (@formats)
{
	my ($format, $restore) = @$_;
	$node->command_ok([ 'pg_dump', "--format=$format", '--file', "$dir/$format", 'app' ], "$format: dumped");
	$node->safe_psql('postgres', "CREATE DATABASE $format TEMPLATE template0");
	local $ENV{PGDATABASE} = $format;
	$node->command_ok($restore, "$format: restored");
	settled($node, $format);
	is(sql($node, $same{$_}, $format), $before{$_}, "$format: the same $_") for sort keys %same;
	is(online($node, $format), 'anna', "$format: online users are online");
	is(sql($node, "SELECT presence.user_status(presence.presence_id('anna'))", $format), 'busy', "$format: what is declared shows");
	is(sql($node, "SELECT presence.heartbeat_by_token('the secret token of anna')", $format), 'ok', "$format: tokens work");
	is(beat($node, 'bert', $format), 'ended', "$format: ended sessions stay ended");
	is(beat($node, 'cleo', $format), 'ok', "$format: timed-out sessions can resume");
	cmp_ok(sql($node, 'SELECT min(seq) FROM presence.presence_changes', $format), '>', $last, "$format: no number is used again");
	isnt(sql($node, 'SELECT epoch FROM presence.presence_cursor()', $format), sql($node, 'SELECT epoch FROM presence.presence_cursor()'),
		"$format: a new epoch");
	is($node->safe_psql($format, "SELECT presence.is_online(presence.presence_id('anna'))", extra_params => [ '-U', 'web' ]), 't',
		"$format: a reader can read");
	is($node->safe_psql($format, 'SELECT count(*) FROM presence.user_sessions', extra_params => [ '-U', 'web' ]), '0',
		"$format: row level security holds");
	is(sql($node, "SELECT string_agg(check_name, ' ') FROM presence.presence_health() WHERE NOT ok", $format), '', "$format: healthy");
}

# A dump must not leave rows out silently.
my @as_dumper = ('pg_dump', '-U', 'dumper', '--file', "$dir/partial", 'app');
$node->command_fails_like(\@as_dumper, qr/row-level security/, 'a role restricted by row level security cannot dump');
sql($node, 'ALTER ROLE dumper BYPASSRLS');
$node->command_ok(\@as_dumper, 'with BYPASSRLS it can');
like(slurp_file("$dir/partial"), qr/^COPY presence\.user_sessions .*\n(?:.+\n){4,}\\\.$/m, 'and the dump has all rows');
report('3 formats: sessions, statuses, privileges, policies, triggers and definitions restored unchanged');
done_testing();
