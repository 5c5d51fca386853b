from glob import glob

from setuptools import setup

setup(
    name="ecmnet",
    version="0.1.0",
    packages=["ecmnet"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/ecmnet"]),
        ("share/ecmnet", ["package.xml"]),
        ("share/ecmnet/launch", glob("launch/*.py")),
        ("share/ecmnet/config", glob("config/*")),
        ("share/ecmnet/rviz", glob("rviz/*.rviz")),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="ECMNet App",
    maintainer_email="ecmnet-app@users.noreply.github.com",
    description="ECMNet street segmentation as a lifecycle node",
    license="MIT",
    entry_points={
        "console_scripts": [
            "segment_node = ecmnet.main:segment_node",
            "camera_node = ecmnet.main:camera_node",
        ]
    },
)
