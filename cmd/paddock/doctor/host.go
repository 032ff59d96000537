package doctor

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// ThisHost returns the machine this process runs on. runtime and docker ask for versions.
func ThisHost(dataDir, engine, isolation string, runtimes func(context.Context, string) (Version, error),
	docker func(context.Context) (Version, error),
) *Host {
	var name unix.Utsname
	_ = unix.Uname(&name)
	return &Host{
		Proc: "/proc", Sys: "/sys", UID: os.Geteuid(), Kernel: unix.ByteSliceToString(name.Release[:]),
		DataDir: dataDir, Engine: engine, Isolation: isolation, CPUs: runtime.NumCPU(),
		LookPath: exec.LookPath, Free: freeSpace, Runtime: runtimes, Docker: docker,
	}
}

func freeSpace(path string) (free, total int64, err error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		if err == nil {
			return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
		}
		parent := filepath.Dir(path)
		if err != unix.ENOENT || parent == path {
			return 0, 0, &os.PathError{Op: "statfs", Path: path, Err: err}
		}
		path = parent
	}
}
