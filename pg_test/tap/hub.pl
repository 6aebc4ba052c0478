# Many servers, one view: two edges publish user_sessions, and a hub that has the extension too shows everybody.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Presence;
use Test::More;
use Time::HiRes qw(sleep);

# Long enough that nobody times out for a slow machine; who goes silent here says so by a release.
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
	sql($edge, 'CREATE PUBLICATION presence FOR TABLE presence.user_sessions');
	sql($hub, sprintf(q{CREATE SUBSCRIPTION %s CONNECTION '%s' PUBLICATION presence}, $edge->name, $edge->connstr . ' dbname=postgres'));
}
$hub->wait_for_subscription_sync($_, $_->name) for $east, $west;
my $listener = $hub->background_psql('postgres');
$listener->query_safe('LISTEN presence');

sub shows { my ($online, $promise) = @_;
	return eventually($hub, "coalesce(string_agg(user_key, ' ' ORDER BY user_key), '') = '$online' FROM presence.online_users()", $promise); }
sub has_told { my ($user, $told, $promise) = @_;
	return eventually($hub, "coalesce(string_agg(status || ' (' || reason || ')', ', ' ORDER BY seq), '') = '$told'
		FROM presence.presence_changes WHERE user_id = presence.presence_id('$user')", $promise); }
sub fall_silent { my ($edge, $session) = @_;
	return sql($edge, "SELECT presence.release_session(presence.presence_id('$session'), '10 ms')"); }
sub time_out_after { my ($time) = @_;
	$hub->append_conf('postgresql.conf', "presence.active_timeout = '$time'");
	return $hub->reload; }

login($east, 'annas-laptop', 'anna');
login($west, 'bert');
shows('anna bert', 'the hub shows who is on either edge');
login($west, 'annas-phone', 'anna');
eventually($hub, "session_count = 2 FROM presence.presence_of(ARRAY[presence.presence_id('anna')])", 'sessions of one user on two edges add up');
logout($east, 'annas-laptop');
eventually($hub, "session_count = 1 FROM presence.presence_of(ARRAY[presence.presence_id('anna')])", 'a logout arrives');
settled($hub);
is(told($hub, 'anna'), 'active (started)', 'on two edges, and then on one: that is no change');
logout($west, 'annas-phone');
shows('bert', 'after the last logout the user is gone');
has_told('anna', 'active (started), inactive (ended)', 'and told to be gone once');

fall_silent($west, 'bert');
shows('', 'a timeout arrives');
is(beat($west, 'bert'), 'ok', 'a heartbeat resumes the session on its edge');
shows('bert', 'a resumed session arrives');
eventually($hub, "string_agg(status::text, ' ' ORDER BY seq) = 'active inactive active' FROM presence.presence_changes
	WHERE user_id = presence.presence_id('bert')", 'silence and return are told, once each');
is(sql($hub, "SELECT is_online FROM presence.user_presence WHERE user_key = 'bert'"), 't', 'user_presence is of the hub itself');
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

# A link that breaks for long, and then many times for a moment.
sql($hub, 'ALTER SUBSCRIPTION east DISABLE');
login($east, 'cleo');
login($west, 'dora');
shows('bert dora', 'with one link broken, the other edge is still shown');
sql($hub, 'ALTER SUBSCRIPTION east ENABLE');
shows('bert cleo dora', 'what happened meanwhile arrives when the link is back');

my $breaks = rounds(10, 100);
for my $n (1 .. $breaks)
{
	sql($east, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
	$n % 2 ? login($east, "guest$n") : logout($east, 'guest' . ($n - 1));
	beat($_->[0], $_->[1]) for [ $east, 'cleo' ], [ $west, 'dora' ], [ $west, 'bert' ];
}
shows('bert cleo dora' . ($breaks % 2 ? " guest$breaks" : ''), 'nothing is lost when a link breaks again and again');
is(sql($hub, "SELECT count(*) FROM (SELECT user_id FROM presence.presence_changes WHERE user_key LIKE 'guest%'
	AND status = 'active' GROUP BY 1 HAVING count(*) > 1) twice"), '0', 'and nobody is told twice');

# An edge that crashes and comes back, for those who keep beating, while somebody on the other edge is not concerned.
my $crashes = rounds(2, 20);
for my $n (1 .. $crashes)
{
	beat($_->[0], $_->[1]) for [ $east, 'cleo' ], [ $west, 'dora' ], [ $west, 'bert' ];
	sql($east, "SELECT pg_sleep(0.1)");
	crash($east);
	$east->start;
	is(beat($east, 'cleo'), 'ok', "crash $n: the session goes on");
	login($east, "after$n");
	eventually($hub, "presence.is_online(presence.presence_id('after$n'))", "crash $n: the link comes back by itself");
	logout($east, "after$n");
}
shows('bert cleo dora', 'after the crashes the hub shows the same');
has_told('cleo', 'active (started)', 'who kept beating through a crash of the edge was not told to be gone');

# An edge that stays away: its people time out by the hub's own clock.
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
is($online, 'bert dora', 'people of an edge that stays away time out on the hub, others do not');
has_told('cleo', 'active (started), inactive (timed_out)', 'and are told to be gone');
time_out_after('10min');
$east->start;
is(beat($east, 'cleo'), 'ok', 'the edge is back, and so is the session');
eventually($hub, "presence.is_online(presence.presence_id('cleo'))", 'the hub shows it again');
eventually($hub, "status = 'active' FROM presence.presence_changes WHERE user_id = presence.presence_id('cleo') ORDER BY seq DESC LIMIT 1",
	'and tells it');

# The hub itself may crash; the edges keep what it has not had.
crash($hub);
login($west, 'emil');
$hub->start;
eventually($hub, "presence.is_online(presence.presence_id('emil'))", 'a hub that crashed catches up');
is(sql($hub, "SELECT count(*) = max(seq) - min(seq) + 1 FROM presence.presence_changes"), 't', 'its numbers have no gap');
sql($east, "SELECT presence.forget_user(presence.presence_id('cleo'))");
eventually($hub, "NOT EXISTS (SELECT FROM presence.user_sessions WHERE user_key = 'cleo')", 'a user forgotten on an edge is gone from the hub');
figure("$breaks broken links and @{[$crashes + 2]} crashes: nothing lost, nobody told twice");
done_testing();
