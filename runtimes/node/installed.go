package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"paddock/runtimes"
)

// keptMark stands beside an image's root file system that an operator brought: it goes when the operator removes it.
const keptMark = "kept"

// Keep has an image in dir stay although no container uses it.
func Keep(dir, digest string) error {
	return os.WriteFile(filepath.Join(dir, digest, keptMark), nil, 0o600)
}

// read takes from an image how its agent is started, as addCommand has written it down: another version of this program may have.
func read(dir, digest string) (runtimes.Image, error) {
	image := runtimes.Image{Runtime: "node", Digest: digest, Rootfs: filepath.Join(dir, digest, "rootfs"), HeapPercent: heapPercent}
	text, err := os.ReadFile(filepath.Join(image.Rootfs, "paddock", "command"))
	if err != nil {
		return image, err
	}
	env, rest, ok := strings.Cut(string(text), "\n\n")
	lines := strings.Split(strings.TrimSpace(rest), "\n")
	if !ok || len(lines) < 2 {
		return image, errors.New("paddock/command cannot be read")
	}
	image.Env, image.Argv = strings.Split(env, "\n"), strings.Fields(lines[0])
	for _, line := range lines[1:] {
		switch name, value, _ := strings.Cut(line, " "); name {
		case "heap":
			if _, err := fmt.Sscanf(value, "%d%%", &image.HeapPercent); err != nil {
				return image, fmt.Errorf("paddock/command: heap %q: %w", value, err)
			}
		case "node":
			image.Version = value
		}
	}
	return image, nil
}
