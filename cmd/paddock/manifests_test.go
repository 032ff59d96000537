package main

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"
)

const deployDir = "../../deploy"

// wantCommand says what is wrong with a command line of ours: a command or a flag that there is not, an argument too many.
func wantCommand(t *testing.T, where string, line []string) {
	t.Helper()
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}
	root := a.rootCommand()
	c, rest, err := root.Find(line)
	if err != nil || c == root {
		t.Errorf("%s: paddock %s: no such command (%v)", where, strings.Join(line, " "), err)
		return
	}
	if err := c.ParseFlags(rest); err != nil {
		t.Errorf("%s: paddock %s: %v", where, strings.Join(line, " "), err)
	}
	if err := cobra.NoArgs(c, c.Flags().Args()); err != nil {
		t.Errorf("%s: paddock %s: %v", where, strings.Join(line, " "), err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The command lines in the units are ours, and the two that own sandboxes leave the keeper alone.
func TestUnits(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(deployDir, "systemd", "*.service"))
	if err != nil || len(files) != 4 {
		t.Fatalf("units: %v, %v", files, err)
	}
	for _, file := range files {
		settings := map[string][]string{}
		for line := range strings.Lines(string(read(t, file))) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
				settings[key] = append(settings[key], value)
			}
		}
		start := strings.Fields(strings.Join(settings["ExecStart"], " "))
		if len(start) < 2 || start[0] != "/usr/bin/paddock" {
			t.Errorf("%s starts %v", file, start)
			continue
		}
		for i, word := range start {
			if strings.HasPrefix(word, "${") { // the environment file's: any value that the flag takes
				start[i] = "a=b"
			}
		}
		wantCommand(t, file, start[1:])
		owns := start[1] == "up" || start[1] == "controller"
		if got := slices.Equal(settings["KillMode"], []string{"process"}) && slices.Equal(settings["Delegate"], []string{"yes"}); got != owns {
			t.Errorf("%s: KillMode %v, Delegate %v", file, settings["KillMode"], settings["Delegate"])
		}
	}
}

func TestComposeFile(t *testing.T) {
	var compose struct {
		Services map[string]struct {
			Image   string
			Command []string
			Volumes []string
		}
		Volumes map[string]any
	}
	if err := yaml.Unmarshal(read(t, filepath.Join(deployDir, "compose.yaml")), &compose); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"store", "access", "controller", "router"} {
		s := compose.Services[name]
		if s.Image == "" {
			t.Errorf("service %s has no image", name)
		}
		command := slices.Clone(s.Command)
		for i, word := range command { // as compose fills it in
			if flag, value, ok := strings.Cut(word, "=${"); ok {
				_, value, _ = strings.Cut(strings.TrimSuffix(value, "}"), ":-")
				command[i] = flag + "=" + value
			}
		}
		wantCommand(t, "compose.yaml", command)
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, ok := compose.Volumes[from]; !ok && !strings.HasPrefix(from, "./certs/") && !strings.HasPrefix(from, "/sys/") {
				t.Errorf("service %s mounts %s, which is no volume", name, from)
			}
		}
	}
}

// manifest is the part of a Kubernetes object that we can be wrong about.
type manifest struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name, Namespace string }
	Spec       struct {
		Selector any
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     struct {
				Containers []struct {
					Name, Image    string
					Args           []string
					Ports          []struct{ Name string }
					VolumeMounts   []struct{ Name string } `yaml:"volumeMounts"`
					ReadinessProbe map[string]any          `yaml:"readinessProbe"`
				}
				Volumes []struct{ Name string }
			}
		}
		VolumeClaimTemplates []struct{ Metadata struct{ Name string } } `yaml:"volumeClaimTemplates"`
	}
}

// Every object parses, its command lines are ours, its mounts have volumes, its probes have ports, its selector its own labels.
func TestKubernetesManifests(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(deployDir, "kubernetes", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for _, file := range files {
		for d := yaml.NewDecoder(bytes.NewReader(read(t, file))); ; {
			var m manifest
			if err := d.Decode(&m); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if m.APIVersion == "" || m.Metadata.Name == "" || m.Metadata.Namespace != "paddock" && m.Kind != "Namespace" {
				t.Errorf("%s: %s %+v", file, m.Kind, m.Metadata)
			}
			kinds[m.Kind+" "+m.Metadata.Name] = file
			checkWorkload(t, file, &m)
		}
	}
	for _, want := range []string{"DaemonSet paddock-controller", "Deployment paddock-router", "StatefulSet paddock-store"} {
		if kinds[want] == "" {
			t.Errorf("there is no %s", want)
		}
	}
}

func checkWorkload(t *testing.T, file string, m *manifest) {
	t.Helper()
	pod := &m.Spec.Template
	if len(pod.Spec.Containers) == 0 {
		return
	}
	selector, _ := m.Spec.Selector.(map[string]any)
	match, _ := selector["matchLabels"].(map[string]any)
	if len(match) == 0 || match["app"] != pod.Metadata.Labels["app"] {
		t.Errorf("%s: selector %v, labels %v", file, match, pod.Metadata.Labels)
	}
	var volumes []string
	for _, v := range pod.Spec.Volumes {
		volumes = append(volumes, v.Name)
	}
	for _, v := range m.Spec.VolumeClaimTemplates {
		volumes = append(volumes, v.Metadata.Name)
	}
	for _, c := range pod.Spec.Containers {
		wantCommand(t, file, c.Args)
		for _, v := range c.VolumeMounts {
			if !slices.Contains(volumes, v.Name) {
				t.Errorf("%s: container %s mounts %s, which is no volume of %v", file, c.Name, v.Name, volumes)
			}
		}
		if len(c.ReadinessProbe) == 0 {
			t.Errorf("%s: container %s has no readiness probe", file, c.Name)
		}
		for _, how := range []string{"httpGet", "tcpSocket"} {
			probe, ok := c.ReadinessProbe[how].(map[string]any)
			if ok && !slices.ContainsFunc(c.Ports, func(p struct{ Name string }) bool { return p.Name == probe["port"] }) {
				t.Errorf("%s: container %s is probed at port %v, which it has not", file, c.Name, probe["port"])
			}
		}
	}
}

// alert is a rule of Prometheus; a field that there is not would be refused.
type alert struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

// alerts reads the alert rules strictly.
func alerts(t *testing.T) (all []alert) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(deployDir, "prometheus", "*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("rules: %v, %v", files, err)
	}
	for _, file := range files {
		var rules struct {
			Groups []struct {
				Name  string
				Rules []alert
			}
		}
		d := yaml.NewDecoder(bytes.NewReader(read(t, file)))
		d.KnownFields(true)
		if err := d.Decode(&rules); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, g := range rules.Groups {
			all = append(all, g.Rules...)
		}
	}
	return all
}

// series finds the metrics that an expression asks for, with a label if it names one.
var series = regexp.MustCompile(`paddock_[a-z_]+(\{[a-z]+="[a-z_]+"\})?`)

// Every alert has what Prometheus and people need, its time is one, and the commands that it names are ours.
func TestAlertRules(t *testing.T) {
	for _, a := range alerts(t) {
		if a.Alert == "" || a.Labels["severity"] == "" || a.Annotations["summary"] == "" || a.Annotations["description"] == "" {
			t.Errorf("it lacks something: %+v", a)
		}
		if _, err := time.ParseDuration(cmp.Or(a.For, "0s")); err != nil {
			t.Errorf("%s: %v", a.Alert, err)
		}
		if len(series.FindAllString(a.Expr, -1)) == 0 || strings.Count(a.Expr, "(") != strings.Count(a.Expr, ")") {
			t.Errorf("%s: %s", a.Alert, a.Expr)
		}
		for i, quoted := range strings.Split(a.Annotations["description"], "`") {
			if line, ok := strings.CutPrefix(quoted, "paddock "); ok && i%2 == 1 {
				wantCommand(t, a.Alert, strings.Fields(line))
			}
		}
	}
}
