# ALTER EXTENSION UPDATE, pg_upgrade, and a library that is newer than the SQL of the database.
#
# Invented versions are installed in a throw-away copy of PostgreSQL, beside the released ones.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Presence;
use Test::More;

my ($prefix) = $ENV{PRESENCE_BINDIR} =~ m{^(.*)\Q$ENV{PRESENCE_SYSTEM_BINDIR}\E$} or die 'not the tests\' PostgreSQL';
my $copy = "$ENV{TESTDIR}/copy";
system_or_bail('cp', '-a', $prefix, $copy);
my $bin = $copy . $ENV{PRESENCE_SYSTEM_BINDIR};
$ENV{PATH} = "$bin:$ENV{PATH}";
chomp(my $scripts = `$bin/pg_config --sharedir`);
$scripts .= '/extension';
like($scripts, qr/^\Q$copy\E/, 'PostgreSQL is a private copy');

my ($current) = slurp_file("$scripts/pg_presence.control") =~ /^default_version = '(.*)'/m;
my $install = slurp_file("$scripts/pg_presence--$current.sql");
for my $released (glob("$ENV{PRESENCE_SQL}/pg_presence--*--*.sql"))
{
	my ($name) = $released =~ m{([^/]*)$};
	ok(-f "$scripts/$name", "installed: $name");
}
sub script { my ($name, $sql) = @_; return append_to_file("$scripts/pg_presence--$name.sql", $sql); }
# A version that differs in nothing; one whose update script is incomplete; one that lacks what the library needs.
script('0.0.1', $install);
script("0.0.1--$current", '');
script('0.0.2', $install . "\nDROP POLICY " . 'own_or_service_select ON @extschema@.user_sessions;' . "\n");
script("0.0.2--$current", '');
script('0.0.3', $install . "\n" . 'ALTER TABLE @extschema@._feed_state DROP COLUMN origin;' . "\n");
script("0.0.3--$current", 'ALTER TABLE @extschema@._feed_state ADD COLUMN origin pg_catalog.text;');

my $node = server('upgrade');
$node->start;
sub fresh
{
	my ($db, $version) = @_;
	sql($node, "CREATE DATABASE $db");
	sql($node, "CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence VERSION '$version'", $db);
	return;
}
fresh('fresh', $current);
my $expected = sql($node, catalog(), 'fresh');

# Every version that can be installed and updated from; the scripts of a release are included automatically.
my @versions = split /\n/, sql($node, "SELECT source FROM pg_extension_update_paths('pg_presence')
	JOIN pg_available_extension_versions v ON v.name = 'pg_presence' AND v.version = source
	WHERE target = '$current' AND path IS NOT NULL AND source NOT IN ('0.0.2', '0.0.3')");
cmp_ok(scalar @versions, '>=', 1, 'there are versions to update from');
my $updates = 0;
for my $version (@versions)
{
	my $db = 'from_' . ($version =~ tr/./_/r);
	fresh($db, $version);
	login($node, 'anna', 'anna', $db);
	sql($node, 'ALTER EXTENSION pg_presence UPDATE', $db);
	same_catalog(sql($node, catalog(), $db), $expected, "$version: after the update the catalog equals that of a fresh install");
	settled($node, $db);
	is(online($node, $db), 'anna', "$version: and online users are still online");
	$updates++;
}
fresh('forgetful', '0.0.2');
sql($node, 'ALTER EXTENSION pg_presence UPDATE', 'forgetful');
isnt(sql($node, catalog(), 'forgetful'), $expected, 'an incomplete update is noticed');

fresh('old', '0.0.3');
my $call = q{SELECT presence.start_session(user_key => 'anna')};
is(sql($node, 'SELECT count(*) FROM presence.online_users()', 'old'), '0', 'with older SQL, functions that need nothing new work');
ok($node->wait_for_log(qr/extension objects of pg_presence are incomplete/), 'the worker logs what is wrong');
like(slurp_file($node->logfile), qr/HINT:  .*ALTER EXTENSION pg_presence UPDATE/, 'and a hint');
sql($node, 'ALTER EXTENSION pg_presence UPDATE', 'old');
login($node, 'anna', 'anna', 'old');
settled($node, 'old');
is(online($node, 'old'), 'anna', 'after the update the worker serves the database');
sql($node, 'ALTER TABLE presence.user_sessions DROP COLUMN user_key', 'fresh');
refused($node, $call, '55000', 'a missing column is reported', 'fresh');

# pg_upgrade, to the same version: it copies the tables as they are.
sql($node, "DROP DATABASE $_") for qw(fresh forgetful);
my ($old_epoch) = sql($node, 'SELECT epoch FROM presence.presence_cursor()', 'old');
logout($node, 'anna', 'old');
login($node, $_, $_, 'old') for qw(bert cleo);
settled($node, 'old');
my $before = sql($node, catalog(), 'old');
my $seq = sql($node, 'SELECT seq FROM presence.presence_cursor()', 'old');
$node->stop;
my $new = server('upgraded');
chdir $ENV{TESTDIR};
command_ok([ 'pg_upgrade', '--no-sync', '-b', $bin, '-B', $bin, '-d', $node->data_dir, '-D', $new->data_dir,
	'-p', $node->port, '-P', $new->port, '-s', $node->host ], 'pg_upgrade');
$new->start;
settled($new, 'old');
same_catalog(sql($new, catalog(), 'old'), $before, 'after pg_upgrade the catalog is the same');
is(online($new, 'old'), 'bert cleo', 'online users are online');
is(beat($new, 'bert', 'old'), 'ok', 'sessions continue');
is(beat($new, 'anna', 'old'), 'ended', 'ended sessions stay ended');
is(sql($new, "SELECT presence.heartbeat_by_token('the secret token of cleo')", 'old'), 'ok', 'tokens work');
is(sql($new, "SELECT min(seq) > $seq FROM presence.presence_changes WHERE seq > $seq", 'old'), 't', 'numbers continue');
isnt(sql($new, 'SELECT epoch FROM presence.presence_cursor()', 'old'), $old_epoch, 'in a new epoch');
report("$updates update paths lead to the catalog of a fresh install; pg_upgrade keeps everything");
done_testing();
