package node

// heapPercent of a container's memory goes to V8's old generation. The engine's overhead covers what Node needs to stand
// there at all; a quarter stays for buffers, the young generation, code and stacks, so that plain growth of the JavaScript heap
// ends in V8's own abort, which names its cause, before the kernel's.
const heapPercent = 75

// preload makes http, https, net, tls and fetch use the egress socket. By NODE_OPTIONS it is loaded in the agent, in children and in
// workers.
const preload = "egress.js"

// command returns how the agent is started. Nothing here keeps hostile code in: it is hygiene, and the container is the boundary.
func command(privateCA bool) (argv, env []string) {
	argv = []string{
		"/paddock/bin/node",
		"--max-old-space-size={heap}",
		"--disable-proto=delete",
		"--no-addons",
	}
	// Children and workers must find the way out, too.
	options := "--no-addons --disable-proto=delete"
	if _, err := embedded.Open(preload); err == nil {
		options += " --require=/paddock/" + preload
	}
	env = []string{
		"PATH=/paddock/bin",
		"HOME=/tmp",
		"TMPDIR=/tmp",
		"TZ=UTC",
		"LANG=C.UTF-8",
		"UV_USE_IO_URING=0", // denied by the seccomp profile; do not try
	}
	if privateCA {
		argv = append(argv, "--use-openssl-ca")
		options += " --use-openssl-ca"
		env = append(env, "SSL_CERT_FILE=/"+bundlePath)
	}
	argv = append(argv, "/paddock/agent.js")
	return argv, append(env, "NODE_OPTIONS="+options)
}
