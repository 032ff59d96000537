package chaos

// faults is what is injected: the numbers are those of the list of faults that the project promises to survive.
var faults = []fault{
	{"F1", "SIGKILL to a sandbox in a call", true, (*chaos).killSandbox},
	{"F3", "SIGKILL to a controller, restarted", true, (*chaos).killController},
	{"F11", "all leases revoked at once", true, (*chaos).revokeLeases},
}
