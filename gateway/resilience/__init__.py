"""What keeps a sick upstream from hurting more than it must."""
