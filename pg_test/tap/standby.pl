# A streaming standby answers who is online, refuses to write, and takes over so that nobody flickers.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Presence;
use Test::More;

my $primary = server('first',
	'presence.active_timeout' => '10min', 'presence.heartbeat_interval' => '2min', 'presence.flush_interval' => '1s',
	'presence.feed_retention' => '1d');
$primary->start;
install($primary);

login($primary, $_) for qw(anna bert cleo);
login($primary, 'annas-phone', 'anna');
settled($primary);
logout($primary, 'bert');
sql($primary, "SELECT presence.release_session(presence.presence_id('cleo'), '10 ms')");
$primary->poll_query_until('postgres', "SELECT NOT is_active FROM presence.user_sessions WHERE user_key = 'cleo'") or die;
settled($primary);

sub standby_of
{
	my ($from, $name) = @_;
	$from->backup($name);
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init_from_backup($from, $name, has_streaming => 1);
	$node->start;
	$from->wait_for_catchup($node, 'replay', $from->lsn('insert'));
	return $node;
}

my $standby = standby_of($primary, 'second');

# What readers are told on both servers. last_seen of who is online may lag by a flush.
my @readers = (
	"SELECT user_key, status, is_online, session_count FROM presence.online_users() ORDER BY 1",
	"SELECT user_key, status, is_online, session_count FROM presence.presence_of(
	     ARRAY(SELECT presence.presence_id(k) FROM unnest(ARRAY['anna', 'bert', 'cleo', 'nobody']) k))",
	"SELECT presence.online_count()",
	"SELECT presence.user_status(presence.presence_id('anna')), presence.user_status(presence.presence_id('bert'))",
	"SELECT presence.last_seen(presence.presence_id('bert')), presence.last_seen(presence.presence_id('nobody'))",
	"SELECT * FROM presence.presence_cursor()",
	"SELECT * FROM presence.changes_since(0)",
	"SELECT * FROM presence.user_presence ORDER BY 1");
is(sql($standby, $_), sql($primary, $_), 'as on the primary: ' . substr($_, 0, 60)) for @readers;
is(sql($standby, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_presence worker'"), '0', 'no worker on a standby');

login($primary, 'dora');
logout($primary, 'annas-phone');
settled($primary);
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
is(online($standby), 'anna dora', 'logins and logouts arrive');

my $anna = "presence.presence_id('anna')";
refused($standby, "SELECT $_", '25006', "refused on a standby: $_") for (
	"presence.start_session($anna)", "presence.start_sessions(ARRAY[$anna])",
	"presence.heartbeat($anna)", "presence.heartbeat_by_token('the secret token of anna')",
	"presence.heartbeat_many(ARRAY[$anna])", "presence.end_session($anna)",
	"presence.end_session_by_token('the secret token of anna')", "presence.end_sessions(ARRAY[$anna])",
	"presence.end_user_sessions($anna)", "presence.release_session($anna)",
	"presence.release_session_by_token('the secret token of anna')", "presence.release_sessions(ARRAY[$anna])",
	"presence.rotate_session_token($anna)", "presence.forget_user($anna)", "presence.cleanup_sessions()");

# Takes over again and again: each new primary gets a standby of its own, and is killed.
my $failovers = rounds(2, 20);
for my $round (1 .. $failovers)
{
	my ($epoch, $seq) = split /\|/, sql($primary, 'SELECT epoch, seq FROM presence.presence_cursor()');
	beat($primary, 'anna');
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	crash($primary);
	is(online($standby), 'anna dora', "$round: online while there is no primary");
	if ($round == $failovers)
	{
		# Nobody could beat for an hour, and the standby has known its sessions for longer.
		sql($standby, 'SELECT * FROM presence.presence_stats');
		an_hour_later($standby);
		is(online($standby), '', "$round: nobody is online after an hour of silence");
	}
	$standby->promote;
	is(online($standby), 'anna dora', "$round: online at once after the promotion");
	is(beat($standby, 'anna'), 'ok', "$round: a session goes on");
	is(beat($standby, 'bert'), 'ended', "$round: an ended one does not");
	settled($standby);
	is(online($standby), 'anna dora', "$round: online when the worker is at work");
	my ($new_epoch, $new_seq) = split /\|/, sql($standby, 'SELECT epoch, seq FROM presence.presence_cursor()');
	isnt($new_epoch, $epoch, "$round: a new epoch");
	cmp_ok($new_seq, '>=', $seq, "$round: numbers go on");
	refused($standby, "SELECT * FROM presence.changes_since($seq, '$epoch')", '72000', "$round: who follows the old epoch starts over");
	is(beat($standby, 'dora'), 'ok', "$round: the other session goes on");
	($primary, $standby) = ($standby, undef);
	$standby = standby_of($primary, "standby$round") if $round < $failovers;
}
is(told($primary, $_), 'active (started)', "$_ was never told to be gone") for qw(anna dora);
is(told($primary, 'cleo'), 'active (started), inactive (released)', 'who was gone stays gone');
figure("$failovers promotions after a kill -9 of the primary: nobody who was online was told to be gone");
done_testing();
