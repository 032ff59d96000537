package docker

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	imagetypes "github.com/docker/docker/api/types/image"
	"golang.org/x/sync/singleflight"

	"paddock/runtimes"
)

// images imports root file systems, each once, however many containers wait for it.
type images struct{ group singleflight.Group }

// imageName is where the engine keeps a runtime's image.
func imageName(image runtimes.Image) string {
	return "paddock-" + image.Runtime + ":" + image.Digest[:12]
}

// id returns the engine's id of the image, importing it first if need be. An import goes on when the caller gives up: the next
// one will want it.
func (g *images) id(ctx context.Context, e *Engine, image runtimes.Image) (string, error) {
	if len(image.Digest) < 12 {
		return "", fmt.Errorf("image %q has no digest", image.Runtime)
	}
	id, err := e.findImage(ctx, image)
	if id != "" || err != nil {
		return id, err
	}
	done := g.group.DoChan(image.Digest, func() (any, error) {
		ctx, cancel := context.WithTimeout(e.ctx, importTimeout)
		defer cancel()
		if id, err := e.findImage(ctx, image); id != "" || err != nil {
			return id, err // another flight has just landed
		}
		return e.importImage(ctx, image)
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return "", r.Err
		}
		return r.Val.(string), nil
	case <-ctx.Done():
		return "", fmt.Errorf("import image: %w", ctx.Err())
	}
}

// findImage returns "" if the engine has not the image, by name and by the digest in its label.
func (e *Engine) findImage(ctx context.Context, image runtimes.Image) (id string, err error) {
	err = e.api.do(ctx, "inspect image", quickTimeout, func(ctx context.Context) error {
		found, err := e.api.client.ImageInspect(ctx, imageName(image))
		if err == nil && found.Config != nil && found.Config.Labels[labelImage] == image.Digest {
			id = found.ID
		}
		return err
	})
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	return id, err
}

// importImage streams the root file system to the engine as the one layer of a new image, FROM scratch.
func (e *Engine) importImage(ctx context.Context, image runtimes.Image) (string, error) {
	e.logger.Info("importing the runtime image into Docker", "image", imageName(image))
	reader, writer := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		writer.CloseWithError(writeTar(writer, image.Rootfs))
	}()
	defer func() {
		reader.Close() // stops the writer if the engine gives up
		<-written
	}()
	err := e.api.do(ctx, "import image", importTimeout, func(ctx context.Context) error {
		answer, err := e.api.client.ImageImport(ctx,
			imagetypes.ImportSource{Source: reader, SourceName: "-"}, imageName(image),
			imagetypes.ImportOptions{
				Message: "paddock runtime image " + image.Digest,
				Changes: []string{"LABEL " + labelImage + "=" + image.Digest},
			})
		if err != nil {
			return err
		}
		defer answer.Close()
		return importFailure(answer)
	})
	if err != nil {
		return "", err
	}
	id, err := e.findImage(ctx, image)
	if err == nil && id == "" {
		err = fmt.Errorf("docker import image: the engine took %s and does not have it", imageName(image))
	}
	return id, err
}

// importFailure reads the engine's progress messages: it answers 200 before it knows whether it succeeds.
func importFailure(answer io.Reader) error {
	messages := json.NewDecoder(answer)
	for {
		var m struct{ Error string }
		switch err := messages.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case m.Error != "":
			return errors.New(m.Error)
		}
	}
}

// writeTar writes a directory of files, directories and symbolic links as root's.
func writeTar(w io.Writer, root string) error {
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		return addToTar(tw, root, path, d)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func addToTar(tw *tar.Writer, root, path string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	var target string
	if d.Type() == fs.ModeSymlink {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	if h.Name, err = filepath.Rel(root, path); err != nil {
		return err
	}
	if d.IsDir() {
		h.Name += "/"
	}
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	if err := tw.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(tw, f)
	return err
}

// PruneImages removes the runtime images that were imported before a time, whose digests are not in keep and that no
// container uses. Another controller that still wants one imports it again.
func (e *Engine) PruneImages(ctx context.Context, before time.Time, keep ...string) error {
	var found []imagetypes.Summary
	err := e.api.do(ctx, "list images", quickTimeout, func(ctx context.Context) (err error) {
		found, err = e.api.client.ImageList(ctx, imagetypes.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelImage))})
		return err
	})
	if err != nil {
		return err
	}
	for _, image := range found {
		if slices.Contains(keep, image.Labels[labelImage]) || image.Created >= before.Unix() {
			continue
		}
		if err := e.removeImage(ctx, image.ID); err != nil {
			return err
		}
	}
	return nil
}

// removeImage removes an image unless a container uses it.
func (e *Engine) removeImage(ctx context.Context, id string) error {
	err := e.api.do(ctx, "remove image", removeTimeout, func(ctx context.Context) error {
		_, err := e.api.client.ImageRemove(ctx, id, imagetypes.RemoveOptions{PruneChildren: true})
		return err
	})
	if errdefs.IsConflict(err) || errdefs.IsNotFound(err) { // conflict: in use
		return nil
	}
	return err
}
