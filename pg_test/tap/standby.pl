# A streaming standby answers reads, refuses writes, and takes over without reporting anybody inactive.
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

# Queries with the same results on both servers. The last_seen of online users may lag by a flush.
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
is(sql($standby, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_presence worker'"), '0', 'there is no worker on a standby');

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
	"presence.bind_sessions(ARRAY[$anna])",
	"presence.rotate_session_token($anna)", "presence.forget_user($anna)", "presence.cleanup_sessions()");

# Several failovers: each new primary gets a standby, and is killed.
my $failovers = rounds(2, 20);
for my $round (1 .. $failovers)
{
	my ($epoch, $seq) = split /\|/, sql($primary, 'SELECT epoch, seq FROM presence.presence_cursor()');
	beat($primary, 'anna');
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	crash($primary);
	is(online($standby), 'anna dora', "$round: the users are online while there is no primary");
	if ($round == $failovers)
	{
		# Nobody can beat for an hour, and the standby has loaded its sessions before.
		sql($standby, 'SELECT * FROM presence.presence_stats');
		an_hour_later($standby);
		is(online($standby), '', "$round: nobody is online after an hour of silence");
	}
	$standby->promote;
	is(online($standby), 'anna dora', "$round: the users are online at once after the promotion");
	is(beat($standby, 'anna'), 'ok', "$round: a session continues");
	is(beat($standby, 'bert'), 'ended', "$round: an ended session stays ended");
	settled($standby);
	is(online($standby), 'anna dora', "$round: the users are online when the worker has started");
	my ($new_epoch, $new_seq) = split /\|/, sql($standby, 'SELECT epoch, seq FROM presence.presence_cursor()');
	isnt($new_epoch, $epoch, "$round: a new epoch");
	cmp_ok($new_seq, '>=', $seq, "$round: numbers continue");
	refused($standby, "SELECT * FROM presence.changes_since($seq, '$epoch')", '72000', "$round: followers of the old epoch have to start over");
	is(beat($standby, 'dora'), 'ok', "$round: the other session continues");
	($primary, $standby) = ($standby, undef);
	$standby = standby_of($primary, "standby$round") if $round < $failovers;
}
is(changes_of($primary, $_), 'active (started)', "$_ was never reported inactive") for qw(anna dora);
is(changes_of($primary, 'cleo'), 'active (started), inactive (released)', 'an inactive user stays inactive');
report("$failovers promotions after a kill -9 of the primary: no online user was reported inactive");
done_testing();
