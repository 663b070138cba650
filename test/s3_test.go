package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

const (
	s3Key    = "testkey"
	s3Secret = "testsecret123"
	s3Bucket = "metrics"
)

// startS3 runs a real S3 server over a temporary directory and returns the object store YAML for its bucket.
func startS3(t *testing.T) (config string, server *process) {
	t.Helper()
	return startS3At(t, "127.0.0.1")
}

// startS3At does so on another address of this machine.
func startS3At(t *testing.T, host string) (config string, server *process) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, s3Bucket), 0o755); err != nil { // a bucket is a directory of the posix backend
		t.Fatal(err)
	}
	endpoint, server := startS3In(t, host, dir)
	return s3Config(endpoint), server
}

// startS3In does so over a directory whose sub-directories are the buckets.
func startS3In(t *testing.T, host, dir string) (endpoint string, server *process) {
	t.Helper()
	endpoint = net.JoinHostPort(host, strconv.Itoa(freePorts(t, 1)[0]))
	server = start(t, "s3", tool(t, "versitygw"), []string{"ROOT_ACCESS_KEY=" + s3Key, "ROOT_SECRET_KEY=" + s3Secret},
		"--quiet", "--region", "us-east-1", "--port", endpoint, "posix", dir)
	eventually(t, 20*time.Second, func() error {
		c, err := net.Dial("tcp", endpoint)
		if err == nil {
			c.Close()
		}
		return err
	})
	return endpoint, server
}

// s3Config is the object store YAML of the bucket on a server.
func s3Config(endpoint string) string {
	return fmt.Sprintf("type: S3\nconfig:\n  bucket: %s\n  endpoint: %s\n  region: us-east-1\n  access_key: %s\n"+
		"  secret_key: %s\n  insecure: true\n", s3Bucket, endpoint, s3Key, s3Secret)
}
