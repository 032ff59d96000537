package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/cmd/paddock/bundle"
	"paddock/cmd/paddock/project"
	"paddock/controller/catalog"
	pb "paddock/proto/paddock/v1"
	"paddock/runtimes/node"
)

// draft is code as it stands in the author's folder, ready to be run without being stored: one file, or the pipeline of a
// manifest. It does not change any more; whoever wants the files of now reads another one.
type draft struct {
	name     string // the function's or the pipeline's
	path     string
	source   *pb.Source        // of a file
	pipeline *pb.Draft         // of a manifest
	manifest *project.Manifest // with pipeline
	files    []string          // all that it was made of, absolute
}

// bundler makes the text to run of a file.
func bundler() (func(path string) (bundle.Result, error), error) {
	curated, err := node.Curated()
	if err != nil {
		return nil, err
	}
	return func(path string) (bundle.Result, error) { return bundle.File(path, curated) }, nil
}

// readDraft reads a file of code, or a manifest with the files that it names.
func readDraft(path string) (*draft, error) {
	if project.IsManifest(path) {
		return readPipelineDraft(path)
	}
	build, err := bundler()
	if err != nil {
		return nil, err
	}
	b, err := build(path)
	if err != nil {
		return nil, err
	}
	return &draft{
		name: project.BareName(path), path: path, files: b.Files,
		source: &pb.Source{Code: b.Code, Name: filepath.Base(path), Function: functionName(project.BareName(path))},
	}, nil
}

// readPipelineDraft reads a manifest, whatever its file is called, or that of a folder, with the code that it names.
func readPipelineDraft(path string) (*draft, error) {
	m, err := project.ReadManifest(path)
	if err != nil {
		return nil, err
	}
	build, err := bundler()
	if err != nil {
		return nil, err
	}
	full, err := filepath.Abs(m.Path)
	if err != nil {
		return nil, err
	}
	d := &draft{name: m.Name, path: m.Path, manifest: m, pipeline: &pb.Draft{Kind: string(m.Kind)}, files: []string{full}}
	for _, s := range m.Steps {
		step := &pb.DraftStep{
			Function: s.Function, OnFailure: string(s.OnFailure), Disabled: s.Disabled, Timeout: durationOf(time.Duration(s.Timeout)),
		}
		if s.File != "" {
			b, err := build(m.FileOf(s))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.File, err)
			}
			step.Source = &pb.Source{Code: b.Code, Name: filepath.Base(s.File)}
			d.files = append(d.files, b.Files...)
		}
		d.pipeline.Steps = append(d.pipeline.Steps, step)
	}
	return d, nil
}

// durationOf is d as a field that is unset where d is 0.
func durationOf(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// isPipeline says whether it is a manifest's.
func (d *draft) isPipeline() bool { return d.pipeline != nil }

// rename makes it the draft of another function or pipeline than its file is called by; "" leaves it.
func (d *draft) rename(name string) {
	if name == "" {
		return
	}
	d.name = name
	if d.source != nil {
		d.source.Function = functionName(name)
	}
}

// functionName is name if a function can have it, else "": a draft need not be one of a function.
func functionName(name string) string {
	if catalog.CheckFunctionName(name) != nil {
		return ""
	}
	return name
}

// request is a call of it. The kind is that of a single function; configuration is laid over the tenant's secrets.
func (d *draft) request(kind string, configuration map[string]string) *pb.InvokeRequest {
	if d.isPipeline() {
		p := proto.CloneOf(d.pipeline)
		p.Configuration = configuration
		return &pb.InvokeRequest{Target: &pb.InvokeRequest_Draft{Draft: p}, Timeout: durationOf(time.Duration(d.manifest.Timeout))}
	}
	s := proto.CloneOf(d.source)
	s.Kind, s.Configuration = kind, configuration
	return &pb.InvokeRequest{Target: &pb.InvokeRequest_Source{Source: s}}
}

// digest tells two states of it apart.
func (d *draft) digest() string {
	sum := sha256.New()
	for _, m := range []proto.Message{d.source, d.pipeline} {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			fmt.Fprintf(sum, "%v", err)
		}
		fmt.Fprintf(sum, "%d ", len(b))
		sum.Write(b)
	}
	if d.manifest != nil {
		fmt.Fprintf(sum, "%v", *d.manifest)
	}
	return hex.EncodeToString(sum.Sum(nil))
}
