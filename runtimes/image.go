// Package runtimes holds what a language runtime is to the rest of Paddock: a read-only root file system and the command
// that starts its agent. Each runtime's own package (runtimes/node) makes its Image. No container is made here.
package runtimes

import (
	"fmt"
	"strings"
)

// ContainerUID is the user that runs in a container where a user namespace maps it; the host's id is per container.
const ContainerUID = 1000

// MountPoint is where a container sees its link and egress sockets.
const MountPoint = "/run/paddock"

// Image is one content-addressed runtime image on this machine.
type Image struct {
	Runtime string   // "node"
	Version string   // "v24.21.0"
	Digest  string   // SHA-256 over every path, mode, link target and content, 64 hex digits; a changed agent makes a new one
	Rootfs  string   // host directory, root-owned, read-only by convention, world-readable
	Env     []string // NAME=value, none secret
	// Argv is the command; "{heap}" in it stands for the heap limit in MiB.
	Argv []string
	// HeapPercent of the memory limit goes to the language's heap; the rest is for buffers, code and stacks.
	HeapPercent int
}

// Command returns the command line for a container of memoryBytes.
func (im Image) Command(memoryBytes int64) []string {
	heap := fmt.Sprint(memoryBytes * int64(im.HeapPercent) / 100 >> 20)
	argv := make([]string, len(im.Argv))
	for i, a := range im.Argv {
		argv[i] = replaceHeap(a, heap)
	}
	return argv
}

func replaceHeap(arg, heap string) string { return strings.ReplaceAll(arg, "{heap}", heap) }
