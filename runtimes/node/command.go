package node

import (
	"fmt"
	"strings"
)

// heapPercent of a container's memory is what V8's old generation may grow to, so that a tenant can have what its limit says. The
// young generation, code, stacks and the agent have room in what the engines add. Measured with 32 to 1024 MiB: arrays and objects
// reach nine tenths of the limit and end in V8's own abort, which names its cause, before the kernel's killer comes; buffers, which
// V8 does not count, end by the killer.
const heapPercent = 95

// preload makes http, https, net, tls and fetch use the egress socket. By NODE_OPTIONS it is loaded in the agent, in children and in
// workers.
const preload = "egress.js"

// command returns how the agent is started. Nothing here keeps hostile code in: it is hygiene, and the container is the boundary.
func command(privateCA bool) (argv, env []string) {
	argv = []string{
		"/paddock/bin/node",
		"--max-old-space-size={heap}",
		// V8 sizes the young generation by the host's memory, which is what it sees: it would grow to most of a container.
		"--max-semi-space-size=8",
		"--disable-proto=delete",
		"--no-addons",
		"--experimental-vm-modules", // ES modules are compiled by the agent
		"--disable-warning=ExperimentalWarning",
	}
	options := "--no-addons --disable-proto=delete --max-old-space-size={half} --max-semi-space-size=4"
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

// addCommand writes the command down in the image, so that containers with other flags are of another digest.
func (t tree) addCommand(privateCA bool) {
	argv, env := command(privateCA)
	lines := strings.Join(env, "\n") + "\n\n" + strings.Join(argv, " ")
	t.text("paddock/command", fmt.Appendf(nil, "%s\nheap %d%%\nnode v%s\n", lines, heapPercent, nodeVersion))
}
