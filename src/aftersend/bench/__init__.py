"""What this machine does with aftersend: figures per CPU-second, beside a bare loop on the same machine."""
