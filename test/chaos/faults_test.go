package chaos

// faults is what is injected: the numbers are those of the list of faults that the project promises to survive.
var faults = []fault{
	{"F1", "SIGKILL to a sandbox in a call", true, (*chaos).killSandbox},
	{"F2", "SIGSTOP to a sandbox in a call", false, (*chaos).stopSandbox},
	{"F3", "SIGKILL to a controller, restarted", true, (*chaos).killController},
	{"F4", "SIGKILL to a router", false, (*chaos).killRouter},
	{"F5", "SIGSTOP to a controller beyond its lease", false, (*chaos).zombie},
	{"F6", "nobody reaches the store", false, (*chaos).partition},
	{"F6a", "a controller does not hear the store", false, (*chaos).halfPartition},
	{"F7", "SIGKILL to a follower, then the leader", false, (*chaos).killMembers},
	{"F8", "the store has no quorum", false, (*chaos).loseQuorum},
	{"F9", "a member loses its disk, is replaced", false, (*chaos).replaceMember},
	{"F10", "compaction beyond what watches have", false, (*chaos).compact},
	{"F11", "all leases revoked at once", true, (*chaos).revokeLeases},
	{"F12", "a leader each 5 s; a controller dies", false, (*chaos).moveLeaders},
	{"F13", "fsync takes 300 ms longer (strace)", false, (*chaos).slowDisks},
	{"F14", "the store's NOSPACE alarm", false, (*chaos).noSpace},
	{"F15", "a controller's disk is full", false, (*chaos).fullDisk},
	{"F17", "one tenant's burst; code that crashes", false, (*chaos).burst},
	{"F18", "SIGKILL to all; 200 clients wait", false, (*chaos).herd},
	{"F19", "five times what a tenant may have", false, (*chaos).overload},
	{"F20", "every binary replaced, and back", false, (*chaos).upgrade},
	{"F21", "half-open connections", false, (*chaos).halfOpen},
	{"F25", "records that nobody can read", false, (*chaos).garbage},
	{"F26", "SIGTERM to a controller in a call", false, (*chaos).drain},
}
