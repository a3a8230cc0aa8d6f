{
  "variables": {
    "lz4_dir%": "<!(node scripts/lz4-dir.mjs)",
    "xen_release%": "<!(node scripts/xen-release.mjs)",
    "napi_dir%": "<!(node -p \"require('node-addon-api').include_dir\")"
  },
  "target_defaults": {
    "default_configuration": "Release",
    "cflags": ["-fvisibility=hidden", "-O3", "-g"],
    "cflags_cc": ["-std=c++17", "-fexceptions", "-Wall", "-Wextra", "-fno-strict-aliasing"],
    "cflags_cc!": ["-std=gnu++17", "-fno-rtti", "-fno-exceptions"]
  },
  "targets": [
    {
      "target_name": "lz4",
      "type": "static_library",
      "sources": ["<(lz4_dir)/lz4.c"],
      "defines": ["LZ4LIB_VISIBILITY="],
      "direct_dependent_settings": { "include_dirs": ["<(lz4_dir)"] }
    },
    {
      "target_name": "pfn_avx2",
      "type": "static_library",
      "sources": ["<!@(find native -name '*_avx2.cc' | sort)"],
      "cflags_cc": ["-mavx2", "-mbmi", "-mbmi2"],
      "include_dirs": ["native", "native/third_party"]
    },
    {
      # GCC 12's AVX-512 headers warn of themselves (its bug 105593), hence no uninitialized warnings.
      "target_name": "pfn_avx512",
      "type": "static_library",
      "sources": ["<!@(find native -name '*_avx512.cc' | sort)"],
      "cflags_cc": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mbmi", "-mbmi2", "-Wno-uninitialized", "-Wno-maybe-uninitialized"],
      "include_dirs": ["native", "native/third_party"]
    },
    {
      "target_name": "dormouse",
      "dependencies": ["lz4", "pfn_avx2", "pfn_avx512"],
      "sources": ["<!@(find native -name '*.cc' -not -name '*_avx2.cc' -not -name '*_avx512.cc' -not -path 'native/host/xen/*' -not -path 'native/fuzz/*' | sort)"],
      "include_dirs": ["native", "native/third_party", "<(napi_dir)"],
      "defines": ["NAPI_VERSION=9", "NAPI_CPP_EXCEPTIONS", "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS", "NODE_ADDON_API_DISABLE_DEPRECATED", "LZ4_STATIC_LINKING_ONLY"],
      "libraries": ["-lpthread"],
      "ldflags": ["-Wl,-Bsymbolic", "-Wl,--exclude-libs,ALL"]
    }
  ],
  "conditions": [
    ["xen_release!=''", {
      "targets": [
        {
          # One target for each release of Xen: the domctl interface is that release's own. Its headers want GNU C++.
          "target_name": "dormouse_xen_<(xen_release)",
          "sources": ["<!@(find native/host/xen native/binding/arguments.cc native/binding/lane_use.cc native/host/hole_map.cc native/host/kept_memory.cc -name '*.cc' -not -path '*/watcher/*' | sort)"],
          "include_dirs": ["native", "<(napi_dir)"],
          "defines": ["__XEN_TOOLS__", "NAPI_VERSION=9", "NAPI_CPP_EXCEPTIONS", "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS", "NODE_ADDON_API_DISABLE_DEPRECATED"],
          "cflags_cc": ["-std=gnu++1z"],
          "libraries": ["-lxenctrl", "-lxenguest", "-lxencall", "-lxendevicemodel", "-lxenforeignmemory", "-lxenevtchn", "-lxentoollog"],
          "ldflags": ["-Wl,-Bsymbolic", "-Wl,--as-needed"]
        },
        {
          "target_name": "dormouse-xen-watcher-<(xen_release)",
          "type": "executable",
          "product_extension": "",
          "sources": ["<!@(find native/host/xen/watcher -name '*.cc' | sort)", "native/host/xen/control.cc", "native/host/xen/handles.cc", "native/host/xen/other_saver.cc"],
          "include_dirs": ["native"],
          "defines": ["__XEN_TOOLS__"],
          "cflags_cc": ["-std=gnu++1z"],
          "libraries": ["-lxenctrl", "-lxenguest", "-lxencall", "-lxenforeignmemory", "-lxenevtchn", "-lxentoollog", "-lxenstore"],
          "ldflags": ["-Wl,--as-needed", "-static-libstdc++", "-static-libgcc"]
        }
      ]
    }]
  ]
}
