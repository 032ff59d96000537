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
	Runtime string // "node"
	Version string // "v24.21.0"
	Digest  string // SHA-256 over every path, mode, link target and content, 64 hex digits; a changed agent makes a new one
	Rootfs  string // host directory, root-owned, read-only by convention, world-readable
	// Env is NAME=value, none secret; "{half}" in it stands for half of the memory limit in MiB.
	Env []string
	// Argv is the command; "{heap}" in it stands for the heap limit in MiB.
	Argv []string
	// HeapPercent of the memory limit is what the language's heap may grow to.
	HeapPercent int
}

// Command returns the command line for a container of memoryBytes.
func (im Image) Command(memoryBytes int64) []string {
	return replaceAll(im.Argv, "{heap}", memoryBytes*int64(im.HeapPercent)/100>>20)
}

// Environ returns the environment for a container of memoryBytes.
func (im Image) Environ(memoryBytes int64) []string {
	return replaceAll(im.Env, "{half}", memoryBytes>>20/2)
}

func replaceAll(texts []string, name string, value int64) []string {
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = strings.ReplaceAll(t, name, fmt.Sprint(value))
	}
	return out
}
