# Many servers, one view: two edges publish user_sessions, and a hub with the extension shows all their users.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Presence;
use Test::More;
use Time::HiRes qw(sleep);

# Long enough that nobody times out on a slow machine; timeouts are made by a release.
my %settings = (
	'presence.active_timeout' => '10min', 'presence.heartbeat_interval' => '5s', 'presence.flush_interval' => '1s',
	wal_retrieve_retry_interval => '200ms');
my ($east, $west, $hub) = map { server($_, %settings) } qw(east west hub);
for my $node ($east, $west, $hub)
{
	$node->start;
	install($node);
}
for my $edge ($east, $west)
{
	sql($edge, 'CREATE PUBLICATION presence FOR TABLE presence.user_sessions, presence.declared_statuses');
	sql($hub, sprintf(q{CREATE SUBSCRIPTION %s CONNECTION '%s' PUBLICATION presence}, $edge->name, $edge->connstr . ' dbname=postgres'));
}
$hub->wait_for_subscription_sync($_, $_->name) for $east, $west;
my $listener = $hub->background_psql('postgres');
$listener->query_safe('LISTEN presence');

sub shows { my ($online, $promise) = @_;
	return eventually($hub, "coalesce(string_agg(user_key, ' ' ORDER BY user_key), '') = '$online' FROM presence.online_users()", $promise); }
sub changes_become { my ($user, $changes, $promise) = @_;
	return eventually($hub, "coalesce(string_agg(status || ' (' || reason || ')', ', ' ORDER BY seq), '') = '$changes'
		FROM presence.presence_changes WHERE user_id = presence.presence_id('$user')", $promise); }
sub fall_silent { my ($edge, $session) = @_;
	return sql($edge, "SELECT presence.release_session(presence.presence_id('$session'), '10 ms')"); }
sub time_out_after { my ($time) = @_;
	$hub->append_conf('postgresql.conf', "presence.active_timeout = '$time'");
	return $hub->reload; }

login($east, 'annas-laptop', 'anna');
login($west, 'bert');
shows('anna bert', 'the hub shows the users of both edges');
login($west, 'annas-phone', 'anna');
eventually($hub, "session_count = 2 FROM presence.presence_of(ARRAY[presence.presence_id('anna')])", 'sessions of one user on two edges add up');
logout($east, 'annas-laptop');
eventually($hub, "session_count = 1 FROM presence.presence_of(ARRAY[presence.presence_id('anna')])", 'a logout arrives');
settled($hub);
is(changes_of($hub, 'anna'), 'active (started)', 'a session less on one of two edges is no change');
logout($west, 'annas-phone');
shows('bert', 'after the last logout the user is offline');
changes_become('anna', 'active (started), inactive (ended)', 'and reported inactive once');

fall_silent($west, 'bert');
shows('', 'a timeout arrives');
is(beat($west, 'bert'), 'ok', 'a heartbeat resumes the session on its edge');
shows('bert', 'a resumed session arrives');
eventually($hub, "string_agg(status::text, ' ' ORDER BY seq) = 'active inactive active' FROM presence.presence_changes
	WHERE user_id = presence.presence_id('bert')", 'timeout and return are reported, once each');
is(sql($hub, "SELECT is_online FROM presence.user_presence WHERE user_key = 'bert'"), 't', 'user_presence is the hub\'s own');
eventually($hub, "NOT EXISTS (SELECT FROM presence.presence_health() WHERE NOT ok AND check_name NOT LIKE '%settings%')", 'the hub is healthy');

my ($out, $notified) = ('', '');
for (1 .. 600)
{
	$out .= $listener->query_safe('SELECT 1');
	my %times = (anna => 0, bert => 0);
	$times{$_}++ for $out =~ /"key":"(anna|bert)","status":/g;
	$notified = "anna $times{anna}, bert $times{bert}";
	last if $times{anna} >= 2 && $times{bert} >= 3;
	sleep 0.1;
}
is($notified, 'anna 2, bert 3', 'each change is notified on the hub, once');
$listener->quit;

# A link that is broken for long, and then many times for a moment.
sql($hub, 'ALTER SUBSCRIPTION east DISABLE');
login($east, 'cleo');
login($west, 'dora');
shows('bert dora', 'with one link broken, the other edge is still shown');
sql($hub, 'ALTER SUBSCRIPTION east ENABLE');
shows('bert cleo dora', 'what happened meanwhile arrives when the link is restored');

my $breaks = rounds(10, 100);
for my $n (1 .. $breaks)
{
	sql($east, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
	$n % 2 ? login($east, "guest$n") : logout($east, 'guest' . ($n - 1));
	beat($_->[0], $_->[1]) for [ $east, 'cleo' ], [ $west, 'dora' ], [ $west, 'bert' ];
}
shows('bert cleo dora' . ($breaks % 2 ? " guest$breaks" : ''), 'nothing is lost when a link breaks again and again');
is(sql($hub, "SELECT count(*) FROM (SELECT user_id FROM presence.presence_changes WHERE user_key LIKE 'guest%'
	AND status = 'active' GROUP BY 1 HAVING count(*) > 1) twice"), '0', 'and no change is reported twice');

# An edge that crashes and restarts while its users keep beating; the users of the other edge are not affected.
my $crashes = rounds(2, 20);
for my $n (1 .. $crashes)
{
	beat($_->[0], $_->[1]) for [ $east, 'cleo' ], [ $west, 'dora' ], [ $west, 'bert' ];
	sql($east, "SELECT pg_sleep(0.1)");
	crash($east);
	$east->start;
	is(beat($east, 'cleo'), 'ok', "crash $n: the session continues");
	login($east, "after$n");
	eventually($hub, "presence.is_online(presence.presence_id('after$n'))", "crash $n: the link is restored by itself");
	logout($east, "after$n");
}
shows('bert cleo dora', 'after the crashes the hub shows the same users');
changes_become('cleo', 'active (started)', 'a user who kept beating through a crash of the edge was not reported inactive');

# An edge that stays down: its users time out on the hub.
crash($east);
time_out_after('15s');
my $online;
for (1 .. 1800)
{
	beat($west, $_) for qw(bert dora);
	$online = online($hub);
	last if $online eq 'bert dora';
	sleep 0.1;
}
is($online, 'bert dora', 'users of an edge that stays down time out on the hub, others do not');
changes_become('cleo', 'active (started), inactive (timed_out)', 'and are reported inactive');
time_out_after('10min');
$east->start;
is(beat($east, 'cleo'), 'ok', 'the edge is up again, and the session continues');
eventually($hub, "presence.is_online(presence.presence_id('cleo'))", 'the hub shows the user again');
eventually($hub, "status = 'active' FROM presence.presence_changes WHERE user_id = presence.presence_id('cleo') ORDER BY seq DESC LIMIT 1",
	'and reports the change');

# The hub itself crashes; the edges keep what it has not received.
crash($hub);
login($west, 'emil');
$hub->start;
eventually($hub, "presence.is_online(presence.presence_id('emil'))", 'a hub that crashed catches up');
sql($west, "SELECT presence.set_status('busy', 'in a meeting', user_id => presence.presence_id('emil'))");
eventually($hub, "presence.user_status(presence.presence_id('emil')) = 'busy'", 'what is declared on an edge shows on the hub');
eventually($hub, "(status, status_text) = ('busy', 'in a meeting') FROM presence.user_presence WHERE user_key = 'emil'", 'and is reported');
sql($west, "SELECT presence.clear_status(user_id => presence.presence_id('emil'))");
eventually($hub, "status = 'active' FROM presence.user_presence WHERE user_key = 'emil'", 'as is its end');
is(sql($hub, "SELECT count(*) = max(seq) - min(seq) + 1 FROM presence.presence_changes"), 't', 'its numbers have no gap');
sql($east, "SELECT presence.forget_user(presence.presence_id('cleo'))");
eventually($hub, "NOT EXISTS (SELECT FROM presence.user_sessions WHERE user_key = 'cleo')", 'a user forgotten on an edge is deleted on the hub');
report("$breaks broken links and @{[$crashes + 2]} crashes: nothing lost, no change reported twice");
done_testing();
